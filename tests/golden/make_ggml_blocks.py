#!/usr/bin/env python3
"""Writes tests/golden/ggml_blocks.json: blocks of GGUF's types, and the values that gguf reads in them.

    pip install gguf numpy                            (made with gguf 0.19)
    python3 tests/golden/make_ggml_blocks.py
"""
import json
import pathlib

import gguf
import numpy as np

TYPES = ("Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K")
HALVES = {"Q4_1": (0, 2), "Q5_1": (0, 2), "Q2_K": (80, 82), "Q3_K": (108,), "Q4_K": (0, 2), "Q5_K": (0, 2),
          "Q6_K": (208,)}  # where d and m are; in others d is the first


def main():
    random = np.random.default_rng(20260101)
    blocks = {}
    for name in TYPES:
        kind = gguf.GGMLQuantizationType[name]
        rows = random.integers(0, 256, (3, gguf.GGML_QUANT_SIZES[kind][1]), dtype=np.uint8)
        for row in rows:
            for at in HALVES.get(name, (0,)):
                row[at:at + 2] = random.normal(0, 0.1, 1).astype("<f2").view("u1")
        values = gguf.quants.dequantize(rows, kind).astype(np.float64)
        blocks[name.lower()] = [{"bytes": row.tolist(), "values": v.tolist()} for row, v in zip(rows, values)]
    path = pathlib.Path(__file__).parent / "ggml_blocks.json"
    path.write_text(json.dumps(blocks, indent=0).replace(",\n", ",") + "\n")


main()
