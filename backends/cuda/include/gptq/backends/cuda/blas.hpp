// cuBLAS and cuSOLVER on row-major views; the sibling of <gptq/backends/cpu/blas.hpp>, with the same names and
// meanings.
//
// A row-major matrix is, read column by column, its own transpose. So the row-major product C = A B is asked for as the
// column-major C' = B' A', and "upper triangle" here is "lower" there.
#pragma once

#include <climits>
#include <cstddef>
#include <memory>
#include <string>
#include <type_traits>

#include <cublas_v2.h>
#include <cuda_runtime.h>
#include <cusolverDn.h>

#include <gptq/backends/cuda/basic_backend.hpp>
#include <gptq/backends/cuda/error.hpp>
#include <gptq/backends/cuda/handle.hpp>
#include <gptq/backends/cuda/memory.hpp>
#include <gptq/error.hpp>
#include <gptq/matrix_view.hpp>

namespace gptq::cuda {

/// How the Hessian's products are taken: by float units, or by tensor cores, which read 10 bits of each mantissa (TF32)
/// and sum in float.
enum class gram_precision { float32, tf32 };

/// The handles of one backend: they belong to one device and one stream. All calls return before the work is done.
class linear_algebra {
 public:
    /// Throws cuda_error where the libraries cannot be set up.
    explicit linear_algebra(std::shared_ptr<const memory_pool> pool) : pool_(std::move(pool)) {
        cublasHandle_t products = nullptr;
        check(cublasCreate(&products), "cublasCreate");
        blas_.reset(products);
        check(cublasSetStream(products, pool_->stream()), "cublasSetStream");
        cusolverDnHandle_t factors = nullptr;
        check(cusolverDnCreate(&factors), "cusolverDnCreate");
        solver_.reset(factors);
        check(cusolverDnSetStream(factors, pool_->stream()), "cusolverDnSetStream");
    }

    /// C = alpha A B + beta C.                                                            A [M,K]  B [K,N]  C [M,N]
    void gemm(matrix_view<const float> A, matrix_view<const float> B, matrix_view<float> C, float alpha,
              float beta) const {
        require(A.cols == B.rows && C.rows == A.rows && C.cols == B.cols, "gemm");
        check(cublasSgemm(blas_.get(), CUBLAS_OP_N, CUBLAS_OP_N, dimension(C.cols), dimension(C.rows),
                          dimension(A.cols), &alpha, B.data, leading(B), A.data, leading(A), &beta, C.data, leading(C)),
              "cublasSgemm");
    }

    /// H = beta H + alpha X'X, upper triangle only.                                                H [K,K]  X [T,K]
    void syrk_upper(matrix_view<const float> X, matrix_view<float> H, float alpha, float beta,
                    gram_precision precision) const {
        require(H.rows == X.cols && H.cols == X.cols, "syrk");
        const bool coarse = precision == gram_precision::tf32;
        check(cublasSetMathMode(blas_.get(), coarse ? CUBLAS_TF32_TENSOR_OP_MATH : CUBLAS_DEFAULT_MATH),
              "cublasSetMathMode");
        const auto status = cublasSsyrk(blas_.get(), CUBLAS_FILL_MODE_LOWER, CUBLAS_OP_N, dimension(H.rows),
                                        dimension(X.rows), &alpha, X.data, leading(X), &beta, H.data, leading(H));
        check(cublasSetMathMode(blas_.get(), CUBLAS_DEFAULT_MATH), "cublasSetMathMode");
        check(status, "cublasSsyrk");
    }

    /// B = B A^-1 for an upper triangular A, whose lower part is not read.                         B [N,K]  A [K,K]
    void trsm_right_upper(matrix_view<const float> A, matrix_view<float> B) const {
        require(A.rows == A.cols && B.cols == A.rows, "trsm");
        const float one = 1.0f;
        check(cublasStrsm(blas_.get(), CUBLAS_SIDE_LEFT, CUBLAS_FILL_MODE_LOWER, CUBLAS_OP_N, CUBLAS_DIAG_NON_UNIT,
                          dimension(B.cols), dimension(B.rows), &one, A.data, leading(A), B.data, leading(B)),
              "cublasStrsm");
    }

    /// Cholesky in place: `upper` gives U with S = U'U, `lower` gives L with S = L L'; the other triangle is left
    /// alone. Waits, and returns false where S is not positive definite.                                   S [K,K]
    bool potrf(matrix_view<float> S, triangle part) const {
        return in_place("potrf", cusolverDnSpotrf_bufferSize, cusolverDnSpotrf, S, part);
    }

    /// The inverse of S from its Cholesky factor in the same triangle. Waits, and returns false where the factor is
    /// singular.                                                                                            S [K,K]
    bool potri(matrix_view<float> S, triangle part) const {
        return in_place("potri", cusolverDnSpotri_bufferSize, cusolverDnSpotri, S, part);
    }

 private:
    /// Both libraries count in int.
    static int dimension(std::size_t n) {
        if (n > static_cast<std::size_t>(INT_MAX))
            throw shape_error("cuBLAS: a dimension of " + std::to_string(n) +
                              " does not fit into int; split the matrix");
        return static_cast<int>(n);
    }

    /// The leading dimension, which has to be at least 1 even for an empty matrix.
    template <class T>
    static int leading(matrix_view<T> m) {
        return dimension(m.ld == 0 ? 1 : m.ld);
    }

    static void require(bool fits, const char* routine) {
        if (!fits)
            throw shape_error(std::string("cuBLAS ") + routine + ": the shapes of the operands do not fit together");
    }

    static cublasFillMode_t fill(triangle part) {
        return part == triangle::upper ? CUBLAS_FILL_MODE_LOWER : CUBLAS_FILL_MODE_UPPER;
    }

    /// Asks cuSOLVER for the size of a routine's work space, then calls it; true where it reports 0.
    template <class SizeOf, class Routine>
    bool in_place(const char* name, SizeOf size_of, Routine routine, matrix_view<float> S, triangle part) const {
        require(S.rows == S.cols, name);
        const int n = dimension(S.rows), ld = leading(S);
        int size = 0, info = -1;
        check(size_of(solver_.get(), fill(part), n, S.data, ld, &size), name);
        device_matrix<float> work(pool_, 1, static_cast<std::size_t>(size) + 1);  // + 1: never nullptr
        device_matrix<int> device_info(pool_, 1, 1);
        check(routine(solver_.get(), fill(part), n, S.data, ld, work.view().data, size, device_info.view().data), name);
        copy(device_info.view(), matrix_view<int>(&info, 1, 1), pool_->stream());
        return info == 0;
    }

    std::shared_ptr<const memory_pool> pool_;
    unique_handle<cublasHandle_t, cublasDestroy> blas_;
    unique_handle<cusolverDnHandle_t, cusolverDnDestroy> solver_;
};

}  // namespace gptq::cuda
