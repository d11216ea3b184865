"""GPTQ as it is usually written in PyTorch, for its time: column by column, blocks of 128, inverse Hessian by three steps.

    python benchmarks/peers/pytorch_loop.py OUT_FEATURES IN_FEATURES [RUNS]

prints the median of the seconds that quantizing a random layer takes, 4 bits, groups of 128, symmetric, the factorization
included and the Hessian not. Compare with `w4/...` of build/release/benchmarks/bench_solver on the same machine.
"""

import sys
import time

import torch


def fit(w, max_code):
    """Scales of a symmetric grid for the rows of w [N, group]."""
    largest = w.abs().amax(dim=1, keepdim=True)
    return torch.where(largest > 0, 2 * largest / max_code, torch.ones_like(largest))


def inverse_factor(H, damp_percent):
    """U, upper triangular, with U'U = (H + damping)^-1."""
    diagonal = torch.arange(H.shape[0])
    H[diagonal, diagonal] += damp_percent * H.diagonal().mean()
    return torch.linalg.cholesky(torch.cholesky_inverse(torch.linalg.cholesky(H)), upper=True)


def quantize(W, H, bits=4, group=128, block=128, damp_percent=0.01):
    """Codes [N, K] and scales [N, K / group] of W [N, K]; W and H are used up."""
    N, K = W.shape
    max_code, zero = 2**bits - 1, 2 ** (bits - 1)
    U = inverse_factor(H, damp_percent)
    codes = torch.empty(N, K, dtype=torch.uint8)
    scales = torch.empty(N, (K + group - 1) // group)
    for first in range(0, K, block):
        last = min(first + block, K)
        current, errors, factor = W[:, first:last].clone(), torch.empty(N, last - first), U[first:last, first:last]
        for i in range(last - first):
            column = first + i
            if column % group == 0:
                scale = fit(current[:, i : i + group], max_code)
                scales[:, column // group] = scale[:, 0]
            w = current[:, i]
            code = torch.clamp(torch.round(w / scale[:, 0]) + zero, 0, max_code)
            codes[:, column] = code.to(torch.uint8)
            error = (w - scale[:, 0] * (code - zero)) / factor[i, i]
            current[:, i:] -= error[:, None] * factor[i, i:][None, :]
            errors[:, i] = error
        W[:, last:] -= errors @ U[first:last, last:]
    return codes, scales


def main():
    N, K = int(sys.argv[1]), int(sys.argv[2])
    runs = int(sys.argv[3]) if len(sys.argv) > 3 else 3
    torch.manual_seed(1)
    W, X = torch.randn(N, K), torch.randn(2048, K)
    H = 2 / X.shape[0] * X.T @ X
    seconds = []
    for _ in range(runs + 1):
        w, h = W.clone(), H.clone()
        start = time.perf_counter()
        quantize(w, h)
        seconds.append(time.perf_counter() - start)
    print(f"{sorted(seconds[1:])[runs // 2]:.3f} s, median of {runs}, {torch.get_num_threads()} threads, torch {torch.__version__}")


if __name__ == "__main__":
    main()
