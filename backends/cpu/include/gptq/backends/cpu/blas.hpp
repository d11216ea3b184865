// The one shim in front of BLAS and LAPACK: row-major views in, Fortran symbols out.
//
// The routines are bound by their link names, under names of our own, so this header can be included before or after
// <cblas.h>, xtensor-blas or any other header that declares them in its own way.
//
// A row-major matrix is, read column by column, its own transpose. So the row-major product C = A B is asked for as the
// column-major C' = B' A', and "upper triangle" here is "L" there.
#pragma once

#include <climits>
#include <cstddef>

#include <gptq/error.hpp>
#include <gptq/matrix_view.hpp>

namespace gptq::blas {

namespace detail {

extern "C" {
void gptq_blas_sgemm(const char*, const char*, const int*, const int*, const int*, const float*, const float*,
                     const int*, const float*, const int*, const float*, float*, const int*) __asm__("sgemm_");
void gptq_blas_ssyrk(const char*, const char*, const int*, const int*, const float*, const float*, const int*,
                     const float*, float*, const int*) __asm__("ssyrk_");
void gptq_blas_strsm(const char*, const char*, const char*, const char*, const int*, const int*, const float*,
                     const float*, const int*, float*, const int*) __asm__("strsm_");
void gptq_lapack_spotrf(const char*, const int*, float*, const int*, int*) __asm__("spotrf_");
void gptq_lapack_spotri(const char*, const int*, float*, const int*, int*) __asm__("spotri_");
}

/// BLAS counts in int. Throws shape_error for a matrix whose rows, columns or stride do not fit.
inline int dimension(std::size_t n) {
    if (n > static_cast<std::size_t>(INT_MAX))
        throw shape_error("BLAS: a dimension of " + std::to_string(n) + " does not fit into int; split the matrix");
    return static_cast<int>(n);
}

/// The leading dimension, which BLAS wants to be at least 1 even for an empty matrix.
inline int leading(std::size_t ld) { return dimension(ld == 0 ? 1 : ld); }

inline void require(bool fits, const char* routine) {
    if (!fits) throw shape_error(std::string("BLAS ") + routine + ": the shapes of the operands do not fit together");
}

/// C = alpha op(A) op(B) + beta C, k of whose products an element sums; "T" transposes. The library's matrices are
/// stored by columns, so that it computes C' = op(B)' op(A)'.
inline void multiply(const char* op_of_a, matrix_view<const float> A, const char* op_of_b, matrix_view<const float> B,
                     std::size_t k, matrix_view<float> C, float alpha, float beta) {
    const int rows = dimension(C.rows), cols = dimension(C.cols), depth = dimension(k);
    const int lda = leading(A.ld), ldb = leading(B.ld), ldc = leading(C.ld);
    gptq_blas_sgemm(op_of_b, op_of_a, &cols, &rows, &depth, &alpha, B.data, &ldb, A.data, &lda, &beta, C.data, &ldc);
}

}  // namespace detail

/// C = alpha A B + beta C.                                                                A [M,K]  B [K,N]  C [M,N]
/// C overlaps neither A nor B; beta = 0 ignores what C held. Throws shape_error where the shapes do not fit.
inline void gemm(matrix_view<const float> A, matrix_view<const float> B, matrix_view<float> C, float alpha,
                 float beta) {
    detail::require(A.cols == B.rows && C.rows == A.rows && C.cols == B.cols, "gemm");
    detail::multiply("N", A, "N", B, A.cols, C, alpha, beta);
}

/// C = alpha A B' + beta C: a linear layer, with inputs A and weights B as checkpoints hold them.
/// A [M,K]  B [N,K]  C [M,N]. Otherwise as gemm.
inline void gemm_nt(matrix_view<const float> A, matrix_view<const float> B, matrix_view<float> C, float alpha,
                    float beta) {
    detail::require(A.cols == B.cols && C.rows == A.rows && C.cols == B.rows, "gemm_nt");
    detail::multiply("N", A, "T", B, A.cols, C, alpha, beta);
}

/// C = alpha A' B + beta C: the gradient of weights, with gradients A of the outputs and inputs B.
/// A [K,M]  B [K,N]  C [M,N]. Otherwise as gemm.
inline void gemm_tn(matrix_view<const float> A, matrix_view<const float> B, matrix_view<float> C, float alpha,
                    float beta) {
    detail::require(A.rows == B.rows && C.rows == A.cols && C.cols == B.cols, "gemm_tn");
    detail::multiply("T", A, "N", B, A.rows, C, alpha, beta);
}

/// H = beta H + alpha X'X, upper triangle only.                                                    H [K,K]  X [T,K]
inline void syrk_upper(matrix_view<const float> X, matrix_view<float> H, float alpha, float beta) {
    detail::require(H.rows == X.cols && H.cols == X.cols, "syrk");
    const int n = detail::dimension(H.rows), k = detail::dimension(X.rows);
    const int ldx = detail::leading(X.ld), ldh = detail::leading(H.ld);
    detail::gptq_blas_ssyrk("L", "N", &n, &k, &alpha, X.data, &ldx, &beta, H.data, &ldh);
}

/// B = B A^-1 for an upper triangular A, whose lower part is not read.                             B [N,K]  A [K,K]
inline void trsm_right_upper(matrix_view<const float> A, matrix_view<float> B) {
    detail::require(A.rows == A.cols && B.cols == A.rows, "trsm");
    const int k = detail::dimension(B.cols), n = detail::dimension(B.rows);
    const int lda = detail::leading(A.ld), ldb = detail::leading(B.ld);
    const float one = 1.0f;
    detail::gptq_blas_strsm("L", "L", "N", "N", &k, &n, &one, A.data, &lda, B.data, &ldb);
}

/// Which triangle of a row-major symmetric matrix is meant.
enum class triangle : char { upper = 'L', lower = 'U' };

/// Cholesky in place: `upper` gives U with S = U'U, `lower` gives L with S = L L'; the other triangle is left alone.
/// Returns false where S is not positive definite.                                                           S [K,K]
inline bool potrf(matrix_view<float> S, triangle part) {
    detail::require(S.rows == S.cols, "potrf");
    const int n = detail::dimension(S.rows), ld = detail::leading(S.ld);
    const char uplo = static_cast<char>(part);
    int info = 0;
    detail::gptq_lapack_spotrf(&uplo, &n, S.data, &ld, &info);
    return info == 0;
}

/// The inverse of S from its Cholesky factor in the same triangle. Returns false where the factor is singular.  S [K,K]
inline bool potri(matrix_view<float> S, triangle part) {
    detail::require(S.rows == S.cols, "potri");
    const int n = detail::dimension(S.rows), ld = detail::leading(S.ld);
    const char uplo = static_cast<char>(part);
    int info = 0;
    detail::gptq_lapack_spotri(&uplo, &n, S.data, &ld, &info);
    return info == 0;
}

}  // namespace gptq::blas
