#!/usr/bin/env python3
"""Quantizes a model folder with AutoRound into a GPTQ checkpoint, to compare time and quality.

    autoround_side.py MODEL OUT --calib TEXT [--bits 4] [--group-size 64] [--nsamples 32] [--seqlen 512]
                      [--iters 200] [--batch-size 8] [--asym] [--device cpu]

The calibration windows are the first ones of the text, without overlap, as `gptq quantize --sampling first` takes them;
everything that is not named here is AutoRound's default, which on a GPU is to tune in half precision. Prints one JSON object with the
seconds that quantizing took (loading and saving not counted) and the peak resident memory in bytes.
"""

import time

import peers


def main():
    parser = peers.quantizer_arguments(__doc__)
    parser.add_argument("--iters", type=int, default=200)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()

    output = peers.take_stdout()
    from auto_round import AutoRound
    from transformers import AutoTokenizer

    windows = peers.calibration_windows(arguments.model, arguments.calib, arguments.nsamples, arguments.seqlen)
    rounder = AutoRound(
        peers.load_float(arguments.model),
        tokenizer=AutoTokenizer.from_pretrained(arguments.model),
        bits=arguments.bits,
        group_size=arguments.group_size,
        sym=not arguments.asym,
        iters=arguments.iters,
        nsamples=arguments.nsamples,
        seqlen=arguments.seqlen,
        batch_size=arguments.batch_size,
        dataset=list(windows[:, None]),  # [1, seqlen] each
        amp=arguments.device != "cpu",  # bfloat16 is emulated on most CPUs
        device_map=arguments.device,
    )
    start = time.perf_counter()
    rounder.quantize()
    seconds = time.perf_counter() - start
    rounder.save_quantized(arguments.out, format="auto_gptq")
    print(peers.report(seconds, "auto-round", "torch"), file=output)


if __name__ == "__main__":
    main()
