// The specification of the Backend concept: plain loops, the standard library alone, sums in double.
// Slow on purpose; every other backend is held to it (see <gptq/testing/conformance.hpp>).
#pragma once

#include <cmath>
#include <cstddef>

#include <gptq/concepts.hpp>
#include <gptq/host_memory.hpp>
#include <gptq/matrix_view.hpp>

namespace gptq {

/// Every operation as its sentence in <gptq/concepts.hpp> reads, and nothing else.
struct reference_backend : host_memory {
    template <class F>
    void for_each_row(std::size_t n, const F& f) const {
        for (std::size_t r = 0; r < n; ++r) f(r);
    }

    void gram_update(matrix_view<float> H, matrix_view<const float> X, float alpha, float beta) const {
        for (std::size_t i = 0; i < H.rows; ++i)
            for (std::size_t j = i; j < H.cols; ++j) {
                double sum = 0.0;
                for (std::size_t t = 0; t < X.rows; ++t) sum += double{X(t, i)} * double{X(t, j)};
                H(i, j) = static_cast<float>(alpha * sum + (beta == 0.0f ? 0.0 : double{beta} * double{H(i, j)}));
            }
    }

    bool factor_upper(matrix_view<float> H) const {
        // H(i, j) = sum over m >= j of A(i, m) A(j, m), so the last column is known first.
        const std::size_t n = H.rows;
        for (std::size_t j = n; j-- > 0;)
            for (std::size_t i = j + 1; i-- > 0;) {
                double rest = H(i, j);
                for (std::size_t m = j + 1; m < n; ++m) rest -= double{H(i, m)} * double{H(j, m)};
                const double value = i == j ? std::sqrt(rest) : rest / double{H(j, j)};
                if (!std::isfinite(value) || (i == j && rest <= 0.0)) return false;
                H(i, j) = static_cast<float>(value);
            }
        clear_lower(H);
        return true;
    }

    bool inverse_factor_upper(matrix_view<float> H) const {
        // The paper's three steps: H = V'V, H^-1 = V^-1 V^-T, H^-1 = U'U.
        const std::size_t n = H.rows;
        matrix<double> V(n, n);
        for (std::size_t i = 0; i < n; ++i)
            for (std::size_t j = i; j < n; ++j) V(i, j) = H(i, j);
        if (!cholesky(V)) return false;
        const matrix<double> R = inverse_of_upper(V);
        matrix<double> U(n, n);
        for (std::size_t i = 0; i < n; ++i)
            for (std::size_t j = i; j < n; ++j)
                for (std::size_t m = j; m < n; ++m) U(i, j) += R(i, m) * R(j, m);
        if (!cholesky(U)) return false;
        for (std::size_t i = 0; i < n; ++i)
            for (std::size_t j = i; j < n; ++j) H(i, j) = static_cast<float>(U(i, j));
        clear_lower(H);
        return true;
    }

    void multiply(matrix_view<float> C, matrix_view<const float> A, matrix_view<const float> B, float alpha,
                  float beta) const {
        for (std::size_t i = 0; i < C.rows; ++i)
            for (std::size_t j = 0; j < C.cols; ++j) {
                double sum = 0.0;
                for (std::size_t m = 0; m < A.cols; ++m) sum += double{A(i, m)} * double{B(m, j)};
                C(i, j) = static_cast<float>(alpha * sum + (beta == 0.0f ? 0.0 : double{beta} * double{C(i, j)}));
            }
    }

    void solve_upper_right(matrix_view<float> B, matrix_view<const float> A) const {
        for (std::size_t r = 0; r < B.rows; ++r)
            for (std::size_t j = 0; j < B.cols; ++j) {
                double rest = B(r, j);
                for (std::size_t m = 0; m < j; ++m) rest -= double{B(r, m)} * double{A(m, j)};
                B(r, j) = static_cast<float>(rest / double{A(j, j)});
            }
    }

 private:
    static void clear_lower(matrix_view<float> H) {
        for (std::size_t i = 0; i < H.rows; ++i)
            for (std::size_t j = 0; j < i; ++j) H(i, j) = 0.0f;
    }

    /// S = V'V in place, upper triangle; false where S is not positive definite.                               S [n,n]
    static bool cholesky(matrix<double>& S) {
        for (std::size_t i = 0; i < S.rows(); ++i)
            for (std::size_t j = i; j < S.cols(); ++j) {
                double rest = S(i, j);
                for (std::size_t m = 0; m < i; ++m) rest -= S(m, i) * S(m, j);
                if (!std::isfinite(rest) || (i == j && rest <= 0.0)) return false;
                S(i, j) = i == j ? std::sqrt(rest) : rest / S(i, i);
            }
        return true;
    }

    /// R = V^-1 for an upper triangular V with a positive diagonal.                                            V [n,n]
    static matrix<double> inverse_of_upper(const matrix<double>& V) {
        matrix<double> R(V.rows(), V.cols());
        for (std::size_t j = 0; j < V.cols(); ++j) {
            R(j, j) = 1.0 / V(j, j);
            for (std::size_t i = j; i-- > 0;) {
                double sum = 0.0;
                for (std::size_t m = i + 1; m <= j; ++m) sum += V(i, m) * R(m, j);
                R(i, j) = -sum / V(i, i);
            }
        }
        return R;
    }
};

static_assert(Backend<reference_backend>);

}  // namespace gptq
