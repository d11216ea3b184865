#!/usr/bin/env python3
"""Writes tests/golden/ggml_blocks.json: blocks of GGUF's types, and the values that gguf reads in them.

    pip install gguf numpy                            (made with gguf 0.19)
    python3 tests/golden/make_ggml_blocks.py
"""
import json
import pathlib

import gguf
import numpy as np

TYPES = {"q4_0": gguf.GGMLQuantizationType.Q4_0, "q4_1": gguf.GGMLQuantizationType.Q4_1,
         "q5_0": gguf.GGMLQuantizationType.Q5_0, "q8_0": gguf.GGMLQuantizationType.Q8_0}


def main():
    random = np.random.default_rng(20260101)
    blocks = {}
    for name, kind in TYPES.items():
        size = gguf.GGML_QUANT_SIZES[kind][1]
        rows = random.integers(0, 256, (3, size), dtype=np.uint8)
        for row in rows:
            row[:4 if name == "q4_1" else 2] = random.normal(0, 0.1, 2 if name == "q4_1" else 1).astype("<f2").view("u1")
        values = gguf.quants.dequantize(rows, kind).astype(np.float64)
        blocks[name] = [{"bytes": row.tolist(), "values": v.tolist()} for row, v in zip(rows, values)]
    path = pathlib.Path(__file__).parent / "ggml_blocks.json"
    path.write_text(json.dumps(blocks, indent=0).replace(",\n", ",") + "\n")


main()
