#!/usr/bin/env python3
"""Writes tests/golden/awq.json: AWQ's search for scales and clipping on one small layer, by numpy.

    pip install numpy                                 (made with numpy 2.4)
    python3 tests/golden/make_awq.py

After llm-awq's auto_scale.py and auto_clip.py, but that clipping sees all tokens and every row. Losses are 2 / T times
the squared error of the outputs, from the inputs themselves.
"""
import json
import pathlib

import numpy as np

N, K, T, GROUP = 12, 64, 48, 32


def numbers(count, state):
    """In -1/2 to 1/2; the test has the same generator."""
    values = np.empty(count)
    for i in range(count):
        state = (1103515245 * state + 12345) % 2**31
        values[i] = state / 2**31 - 0.5
    return values.astype(np.float32)


def rounded(W, bits):
    """Asymmetric min-max grids with scales in half."""
    groups = W.reshape(-1, GROUP)
    low, high = np.minimum(groups.min(1), 0), np.maximum(groups.max(1), 0)
    scale = ((high - low) / (2**bits - 1)).astype(np.float16).astype(np.float32)[:, None]
    zero = np.round(-low[:, None] / scale)
    codes = np.clip(np.round(groups / scale) + zero, 0, 2**bits - 1)
    return (scale * (codes - zero)).reshape(W.shape)


def loss(X, E):
    return 2 / T * float(np.sum((X.astype(np.float64) @ E.T.astype(np.float64)) ** 2))


def search(W, X, bits):
    mean = np.abs(X).mean(0)
    losses, scales = [], []
    for i in range(20):
        s = np.maximum(mean ** (i / 20), 1e-4)
        s /= np.sqrt(s.max() * s.min())
        losses.append(loss(X, rounded(W * s, bits) / s - W))
        scales.append(s)
    best = int(np.argmin(losses))
    return losses, best, scales[best]


def clip(W, X, bits):
    groups, inputs = W.reshape(N, -1, GROUP), X.reshape(T, -1, GROUP)
    largest = np.abs(groups).max(2, keepdims=True)
    best, least = largest.copy(), np.full(largest.shape, np.inf)
    for i in range(10):
        limit = largest * (1 - i / 20)
        E = rounded(np.clip(groups, -limit, limit).reshape(N, K), bits).reshape(groups.shape) - groups
        error = (np.einsum("tgk,ngk->ngt", inputs, E) ** 2).mean(2, keepdims=True)
        best, least = np.where(error < least, limit, best), np.minimum(error, least)
    return np.clip(groups, -best, best).reshape(N, K)


def main():
    W, X = numbers(N * K, 1).reshape(N, K), numbers(T * K, 2).reshape(T, K)
    X[:, 3::16] *= 30
    results = []
    for bits in (2, 3, 4):
        losses, best, s = search(W, X, bits)
        scaled, inputs = (W * s).astype(np.float32), (X / s).astype(np.float32)
        clipped = clip(scaled, inputs, bits)
        results.append({"bits": bits, "alpha": best / 20, "losses": losses, "scales": s.astype(np.float64).tolist(),
                        "rounded_loss": loss(inputs, rounded(scaled, bits) - scaled),
                        "clipped_loss": loss(inputs, rounded(clipped, bits) - scaled)})
    path = pathlib.Path(__file__).parent / "awq.json"
    path.write_text(json.dumps(results, indent=0).replace(",\n", ",") + "\n")


main()
