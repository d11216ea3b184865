// Products with float weights, and the dot products they are made of.
#pragma once

#include <cstddef>
#include <span>

#include <gptq/backends/cpu/blas.hpp>
#include <gptq/fold.hpp>
#include <gptq/kernels/threads.hpp>
#include <gptq/matrix_view.hpp>

namespace gptq::model {

/// The sum of a[i] * b[i].
inline float dot(std::span<const float> a, std::span<const float> b) {
    return gptq::detail::sum<16>(a.size(), [a, b](std::size_t i) { return a[i] * b[i]; });
}

/// Y = X · Wᵀ.                                                                            X [T, K]  W [N, K]  Y [T, N]
inline void multiply_dense(matrix_view<const float> x, matrix_view<const float> w, matrix_view<float> y) {
    // BLAS copies W into an order of its own first. That pays only if more than a few rows use the copy; and between
    // products with codes, its threads and OpenMP's would keep each other from the processors.
    constexpr std::size_t few_rows = 4, worth_starting = std::size_t{1} << 17;
    if (x.rows > few_rows) return blas::gemm_nt(x, w, y, 1.0f, 0.0f);
    const std::size_t threads = w.rows * w.cols < worth_starting ? 1 : kernels::default_threads();
    kernels::in_parallel(w.rows, threads, [&](std::size_t first, std::size_t last) {
        for (std::size_t n = first; n < last; ++n)
            for (std::size_t t = 0; t < x.rows; ++t) y(t, n) = dot(x.row(t), w.row(n));
    });
}

}  // namespace gptq::model
