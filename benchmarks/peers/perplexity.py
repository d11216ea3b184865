#!/usr/bin/env python3
"""Perplexity of a model folder by transformers in float32: the yardstick for `gptq eval`.

    perplexity.py MODEL --text FILE [--seqlen 1024] [--max-tokens N] [--rtn BITS GROUP]

MODEL may be quantized (GPTQ or compressed-tensors). --rtn rounds a float model to nearest first.
Prints one JSON object.
"""

import argparse
import json
import time

import torch

import peers


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--text", required=True)
    parser.add_argument("--seqlen", type=int, default=1024)
    parser.add_argument("--max-tokens", type=int)
    parser.add_argument("--rtn", type=int, nargs=2, metavar=("BITS", "GROUP"))
    parser.add_argument("--threads", type=int)
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)

    output = peers.take_stdout()
    ids = peers.token_ids(arguments.model, arguments.text, arguments.max_tokens)
    model = peers.load(arguments.model)
    if arguments.rtn:
        peers.round_to_nearest_(model, *arguments.rtn)
    start = time.perf_counter()
    value, tokens = peers.perplexity(model, ids, arguments.seqlen)
    seconds = time.perf_counter() - start
    print(json.dumps({"perplexity": value, "tokens": tokens, "seconds": seconds}), file=output)


if __name__ == "__main__":
    main()
