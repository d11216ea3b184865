// Products with float weights, and the dot products they are made of.
#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <span>
#include <type_traits>

#include <gptq/backends/cpu/blas.hpp>
#include <gptq/fold.hpp>
#include <gptq/half.hpp>
#include <gptq/kernels/isa.hpp>
#include <gptq/kernels/rows.hpp>
#include <gptq/kernels/threads.hpp>
#include <gptq/matmul.hpp>
#include <gptq/matrix_view.hpp>

namespace gptq::model {

/// A finite number as a float, in a way that compilers make vector instructions of.
constexpr float widen_finite(float x) { return x; }
constexpr float widen_finite(bfloat16 x) { return to_float(x); }
constexpr float widen_finite(half x) {
    const std::uint32_t magnitude = (x.bits & 0x7fffu) << 13, sign = (x.bits & 0x8000u) << 16;
    return std::bit_cast<float>(std::bit_cast<std::uint32_t>(std::bit_cast<float>(magnitude) * 0x1p112f) | sign);
}

/// The sum of a[i] * b[i], finite numbers.
template <class T = float>
constexpr float dot(std::span<const float> a, std::span<const T> b) {
    return gptq::detail::sum<16>(a.size(), [a, b](std::size_t i) { return a[i] * widen_finite(b[i]); });
}

/// Y = X · Wᵀ for a few rows of X, a job of kernels::run_jobs. W is of float, half or bfloat16, all finite.
///                                                                                        X [T, K]  W [N, K]  Y [T, N]
template <class T = float>
struct dense_job {
    matrix_view<const float> x;
    matrix_view<const T> w;
    matrix_view<float> y;

    std::size_t count() const { return (w.rows + rows_of_piece - 1) / rows_of_piece; }
    std::size_t work() const { return x.rows * w.rows * w.cols; }
    void operator()(std::size_t first, std::size_t last) const {
        const auto of_feature = [this](std::size_t n) {
            for (std::size_t t = 0; t < x.rows; ++t) y(t, n) = dot(x.row(t), w.row(n));
        };
        kernels::run_rows(best_isa(), of_feature, first * rows_of_piece, std::min(last * rows_of_piece, w.rows));
    }

 private:
    static constexpr std::size_t rows_of_piece = 16;
};

/// BLAS copies W into an order of its own first. That pays only if more than a few rows of X use the copy; and between
/// products with codes, its threads and OpenMP's would keep each other from the processors.
inline bool worth_blas(matrix_view<const float> x) { return x.rows > 4; }

/// Y = X · Wᵀ. Numbers of half or bfloat16, all finite, are widened for BLAS, some output features at a time.
///                                                                                        X [T, K]  W [N, K]  Y [T, N]
template <class T>
void multiply_dense(matrix_view<const float> x, matrix_view<const T> w, matrix_view<float> y) {
    if (!worth_blas(x)) {
        const std::array jobs = {dense_job<T>{x, w, y}};
        return kernels::run_jobs(jobs, matmul_options{}.threads_for(jobs.front().work()));
    }
    if constexpr (std::is_same_v<T, float>) {
        blas::gemm_nt(x, w, y, 1.0f, 0.0f);
    } else {
        constexpr std::size_t slab = 2048;
        matrix<float> wide(std::min(slab, w.rows), w.cols);
        for (std::size_t first = 0; first < w.rows; first += slab) {
            const std::size_t last = std::min(first + slab, w.rows);
            const auto widen_row = [&](std::size_t r) {
                const std::span<const T> from = w.row(first + r);
                const std::span<float> to = wide.view().row(r);
                for (std::size_t i = 0; i < to.size(); ++i) to[i] = widen_finite(from[i]);
            };
            kernels::run_rows(best_isa(), widen_row, 0, last - first);
            blas::gemm_nt(x, wide.view().block(0, last - first, 0, w.cols), y.columns(first, last), 1.0f, 0.0f);
        }
    }
}

}  // namespace gptq::model
