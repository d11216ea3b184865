// Products with float weights, and the dot products they are made of.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <span>

#include <gptq/backends/cpu/blas.hpp>
#include <gptq/fold.hpp>
#include <gptq/kernels/threads.hpp>
#include <gptq/matmul.hpp>
#include <gptq/matrix_view.hpp>

namespace gptq::model {

/// The sum of a[i] * b[i].
inline float dot(std::span<const float> a, std::span<const float> b) {
    return gptq::detail::sum<16>(a.size(), [a, b](std::size_t i) { return a[i] * b[i]; });
}

/// Y = X · Wᵀ for a few rows of X, a job of kernels::run_jobs.                              X [T, K]  W [N, K]  Y [T, N]
struct dense_job {
    matrix_view<const float> x, w;
    matrix_view<float> y;

    std::size_t count() const { return (w.rows + rows_of_piece - 1) / rows_of_piece; }
    std::size_t work() const { return x.rows * w.rows * w.cols; }
    void operator()(std::size_t first, std::size_t last) const {
        const std::size_t end = std::min(last * rows_of_piece, w.rows);
        for (std::size_t n = first * rows_of_piece; n < end; ++n)
            for (std::size_t t = 0; t < x.rows; ++t) y(t, n) = dot(x.row(t), w.row(n));
    }

 private:
    static constexpr std::size_t rows_of_piece = 16;
};

/// BLAS copies W into an order of its own first. That pays only if more than a few rows of X use the copy; and between
/// products with codes, its threads and OpenMP's would keep each other from the processors.
inline bool worth_blas(matrix_view<const float> x) { return x.rows > 4; }

/// Y = X · Wᵀ.                                                                            X [T, K]  W [N, K]  Y [T, N]
inline void multiply_dense(matrix_view<const float> x, matrix_view<const float> w, matrix_view<float> y) {
    if (worth_blas(x)) return blas::gemm_nt(x, w, y, 1.0f, 0.0f);
    const std::array jobs = {dense_job{x, w, y}};
    kernels::run_jobs(jobs, matmul_options{}.threads_for(jobs.front().work()));
}

}  // namespace gptq::model
