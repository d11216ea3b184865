#!/usr/bin/env python3
"""Quantizes a model folder with GPTQModel, with the settings of `gptq quantize`, to compare time and quality.

    gptqmodel_side.py MODEL OUT --calib TEXT [--bits 4] [--group-size 64] [--nsamples 32] [--seqlen 512]
                      [--order gar|natural|act] [--asym] [--format gptq|gptq_v2] [--damp-percent 0.01]
                      [--more '{"mse": 2.4, "gptaq": {"alpha": 0.25}}']

The calibration windows are the first ones of the text, without overlap, as `gptq quantize --sampling first` takes them;
--more is further settings of GPTQModel's QuantizeConfig. Prints one JSON object with the seconds that quantizing took (loading and saving
not counted) and the peak resident memory in bytes.
"""

import json
import time

import peers

ORDERS = {
    "gar": {"desc_act": False, "act_group_aware": True},
    "natural": {"desc_act": False, "act_group_aware": False},
    "act": {"desc_act": True, "act_group_aware": False},
}


def main():
    parser = peers.quantizer_arguments(__doc__)
    parser.add_argument("--order", choices=ORDERS, default="gar")
    parser.add_argument("--format", choices=("gptq", "gptq_v2"), default="gptq")
    parser.add_argument("--damp-percent", type=float, default=0.01)
    parser.add_argument("--more", type=json.loads, default={})
    arguments = parser.parse_args()

    output = peers.take_stdout()
    from gptqmodel import GPTQModel, QuantizeConfig

    windows = [
        {"input_ids": window, "attention_mask": [1] * arguments.seqlen}  # the form GPTQModel takes
        for window in peers.calibration_windows(
            arguments.model, arguments.calib, arguments.nsamples, arguments.seqlen
        ).tolist()
    ]
    config = QuantizeConfig(
        bits=arguments.bits,
        group_size=arguments.group_size,
        sym=not arguments.asym,
        format=arguments.format,
        damp_percent=arguments.damp_percent,
        # Weights stay in memory: faster, and with offloading version 7.7 fails on models of a few layers.
        offload_to_disk=False,
        **ORDERS[arguments.order],
        **arguments.more,
    )
    model = GPTQModel.load(arguments.model, config, device="cpu")
    start = time.perf_counter()
    model.quantize(windows, batch_size=1)
    seconds = time.perf_counter() - start
    model.save(arguments.out)
    print(peers.report(seconds, "gptqmodel", "torch"), file=output)


if __name__ == "__main__":
    main()
