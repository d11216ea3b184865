// The CUDA backend on a machine without a GPU: its kernels run on the host, BLAS stands in for cuBLAS and
// cuSOLVER. It is there to test the kernels, and hundreds of times slower than cpu_backend.
#pragma once

#include <cstddef>
#include <type_traits>
#include <utility>

#include <gptq/backends/cpu/blas.hpp>
#include <gptq/backends/cuda/basic_backend.hpp>
#include <gptq/backends/cuda/context.hpp>
#include <gptq/backends/cuda/host_context.hpp>
#include <gptq/backends/cuda/prepared.hpp>
#include <gptq/concepts.hpp>
#include <gptq/half.hpp>
#include <gptq/host_memory.hpp>
#include <gptq/matrix_view.hpp>

namespace gptq::cuda {

/// A model of Machine that has no device.
struct host_machine : host_memory {
    template <class Kernel>
    void launch(const launch_shape& shape, const Kernel& kernel) const {
        host_launch(shape, kernel);
    }
    void gemm(matrix_view<const float> A, matrix_view<const float> B, matrix_view<float> C, float alpha,
              float beta) const {
        blas::gemm(A, B, C, alpha, beta);
    }
    void syrk_upper(matrix_view<const float> X, matrix_view<float> H, float alpha, float beta) const {
        blas::syrk_upper(X, H, alpha, beta);
    }
    void trsm_right_upper(matrix_view<const float> A, matrix_view<float> B) const { blas::trsm_right_upper(A, B); }
    bool potrf(matrix_view<float> S, triangle part) const { return blas::potrf(S, of_blas(part)); }
    bool potri(matrix_view<float> S, triangle part) const { return blas::potri(S, of_blas(part)); }

    template <class T>
    matrix<T> room_for(std::size_t rows, std::size_t cols) const {
        return matrix<T>(rows, cols);
    }
    template <class T>
    void upload(matrix_view<const std::type_identity_t<T>> host, matrix_view<T> mine) const {
        download<T>(host, mine);
    }
    template <class T, class U>
    void multiply_transposed(matrix_view<const T> X, matrix_view<const T> W, matrix_view<U> Y, float beta) const {
        for (std::size_t r = 0; r < Y.rows; ++r)
            for (std::size_t n = 0; n < Y.cols; ++n) {
                float sum = beta == 0.0f ? 0.0f : beta * to_float(Y(r, n));
                for (std::size_t k = 0; k < X.cols; ++k) sum += to_float(X(r, k)) * to_float(W(n, k));
                if constexpr (std::is_same_v<U, float>)
                    Y(r, n) = sum;
                else
                    Y(r, n) = narrow<U>(sum);
            }
    }
    template <class T>
    void gram(matrix_view<const T> X, matrix_view<float> H, float alpha, float beta) const {
        if constexpr (std::is_same_v<T, float>) {
            syrk_upper(X, H, alpha, beta);
        } else {
            matrix<float> wide(X.rows, X.cols);
            for (std::size_t r = 0; r < X.rows; ++r)
                for (std::size_t c = 0; c < X.cols; ++c) wide(r, c) = to_float(X(r, c));
            syrk_upper(std::as_const(wide).view(), H, alpha, beta);
        }
    }
    std::size_t wanted_blocks() const { return blocks; }

    std::size_t blocks = 1;  ///< what wanted_blocks() says

 private:
    static blas::triangle of_blas(triangle part) {
        return part == triangle::upper ? blas::triangle::upper : blas::triangle::lower;
    }
};

static_assert(ProductMachine<host_machine>);

using host_executed_backend = basic_backend<host_machine>;

static_assert(Backend<host_executed_backend>);

}  // namespace gptq::cuda
