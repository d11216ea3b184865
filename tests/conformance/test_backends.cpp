// Every backend of the library conforms, and the check finds backends that do not.
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include <gptq/backends/cpu/cpu_backend.hpp>
#include <gptq/reference_backend.hpp>
#include <gptq/testing/conformance.hpp>

#include "support/catch.hpp"
#include "violates.hpp"

using gptq::cpu_backend;
using gptq::matrix_view;
using gptq::testing::check_backend;
using gptq::testing::check_backend_operations;
using gptq_test::violates;

namespace {

using floats = matrix_view<float>;
using const_floats = matrix_view<const float>;

struct skips_last_row : cpu_backend {
    template <class F>
    void for_each_row(std::size_t n, const F& f) const {
        cpu_backend::for_each_row(n > 1000 ? n - 1 : n, f);
    }
};

struct visits_twice : cpu_backend {
    template <class F>
    void for_each_row(std::size_t n, const F& f) const {
        cpu_backend::for_each_row(n, f);
        if (n == 7) f(3);
    }
};

struct fills_lower_triangle : cpu_backend {
    void gram_update(floats H, const_floats X, float alpha, float beta) const {
        cpu_backend::gram_update(H, X, alpha, beta);
        for (std::size_t i = 0; i < H.rows; ++i)
            for (std::size_t j = 0; j < i; ++j) H(i, j) = H(j, i);
    }
};

struct forgets_beta : cpu_backend {
    void gram_update(floats H, const_floats X, float alpha, float) const {
        cpu_backend::gram_update(H, X, alpha, 0.0f);
    }
};

struct forgets_ld : cpu_backend {
    void gram_update(floats H, const_floats X, float alpha, float beta) const {
        cpu_backend::gram_update(H, {X.data, X.rows, X.cols}, alpha, beta);
    }
};

struct multiplies_garbage : cpu_backend {
    void multiply(floats C, const_floats A, const_floats B, float alpha, float beta) const {
        for (std::size_t i = 0; i < C.rows; ++i)
            for (std::size_t j = 0; j < C.cols; ++j) C(i, j) *= beta;
        cpu_backend::multiply(C, A, B, alpha, 1.0f);
    }
};

/// As hardware does that takes 10 bits of the operands' mantissa.
struct multiplies_coarsely : cpu_backend {
    void multiply(floats C, const_floats A, const_floats B, float alpha, float beta) const {
        gptq::matrix<float> coarse(A.rows, A.cols);
        for (std::size_t i = 0; i < A.rows; ++i)
            for (std::size_t j = 0; j < A.cols; ++j) coarse(i, j) = gptq::round_to_half(A(i, j));
        cpu_backend::multiply(C, coarse.view(), B, alpha, beta);
    }
};

struct leaves_lower_triangle : cpu_backend {
    bool factor_upper(floats H) const {
        gptq::matrix<float> A(H.rows, H.cols);
        download(const_floats(H), A.view());
        const bool done = cpu_backend::factor_upper(A.view());
        for (std::size_t i = 0; i < H.rows; ++i)
            for (std::size_t j = i; j < H.cols; ++j) H(i, j) = A(i, j);
        return done;
    }
};

/// The Cholesky factor of textbooks, H = R'R, in place of H = A A'.
struct factors_the_other_way : cpu_backend {
    bool factor_upper(floats H) const {
        if (!gptq::blas::potrf(H, gptq::blas::triangle::upper)) return false;
        for (std::size_t i = 0; i < H.rows; ++i) std::fill_n(H.row(i).begin(), i, 0.0f);
        return true;
    }
};

struct always_succeeds : cpu_backend {
    bool factor_upper(floats H) const {
        cpu_backend::factor_upper(H);
        return true;
    }
    bool inverse_factor_upper(floats H) const {
        cpu_backend::inverse_factor_upper(H);
        return true;
    }
};

/// The inverse of a factor is a factor of the inverse, but not the one that is asked for: L'L, L lower triangular.
struct inverts_the_wrong_factor : cpu_backend {
    bool inverse_factor_upper(floats H) const { return factor_upper(H); }
};

struct reads_lower_triangle : cpu_backend {
    void solve_upper_right(floats B, const_floats A) const {
        cpu_backend::solve_upper_right(B, A);
        for (std::size_t r = 0; A.rows > 1 && r < B.rows; ++r) B(r, 0) += 0.0f * A(1, 0);
    }
};

struct solves_from_the_left : cpu_backend {
    void solve_upper_right(floats B, const_floats A) const {
        gptq::matrix<float> transposed(A.rows, A.cols);
        for (std::size_t i = 0; i < A.rows; ++i) {
            transposed(i, i) = A(i, i);
            for (std::size_t j = i + 1; j < A.cols; ++j) transposed(i, j) = -A(i, j);
        }
        cpu_backend::solve_upper_right(B, transposed.view());
    }
};

struct hands_out_used_memory : cpu_backend {
    template <class T>
    gptq::matrix<T> make_matrix(std::size_t rows, std::size_t cols) const {
        gptq::matrix<T> m(rows, cols);
        if (rows * cols > 0) m(rows / 2, cols / 2) = T{9};
        return m;
    }
};

struct downloads_without_ld : cpu_backend {
    template <class T>
    void download(matrix_view<const std::type_identity_t<T>> mine, matrix_view<T> host) const {
        host.ld = host.cols;
        cpu_backend::download(mine, host);
    }
};

struct lends_without_ld : cpu_backend {
    template <class T>
    auto lend(matrix_view<T> host) const {
        host.ld = host.cols;
        return cpu_backend::lend(host);
    }
};

struct throws_from_solve : cpu_backend {
    void solve_upper_right(floats, const_floats) const { throw gptq::unsupported_error("not written yet"); }
};

}  // namespace

TEST_CASE("what a row throws arrives where the rows were asked for, once no thread works on any") {
    for (const std::size_t n : {1u, 40u, 4000u}) {
        std::vector<int> visits(n);
        const auto work = [&](std::size_t r) {
            if (r == n / 2) throw gptq::shape_error("row " + std::to_string(r));
            visits[r] = 1;
        };
        CHECK_THROWS_AS(cpu_backend().for_each_row(n, work), gptq::shape_error);
        CHECK(visits[n / 2] == 0);
    }
}

TEST_CASE("the library's backends conform") {
    const gptq::testing::violations none;
    CHECK(check_backend(gptq::reference_backend{}) == none);
    CHECK(check_backend(cpu_backend{}) == none);
}

TEST_CASE("the check finds broken backends") {
    CHECK(violates(check_backend_operations<hands_out_used_memory>(), "Backend 1"));
    CHECK(violates(check_backend_operations<downloads_without_ld>(), "Backend 2"));
    CHECK(violates(check_backend_operations<lends_without_ld>(), "Backend 2"));
    CHECK(violates(check_backend_operations<skips_last_row>(), "Backend 3"));
    CHECK(violates(check_backend_operations<visits_twice>(), "Backend 3"));
    CHECK(violates(check_backend_operations<fills_lower_triangle>(), "Backend 4"));
    CHECK(violates(check_backend_operations<forgets_beta>(), "Backend 4"));
    CHECK(violates(check_backend_operations<forgets_ld>(), "Backend 4"));
    CHECK(violates(check_backend_operations<leaves_lower_triangle>(), "Backend 5"));
    CHECK(violates(check_backend_operations<factors_the_other_way>(), "Backend 5"));
    CHECK(violates(check_backend_operations<always_succeeds>(), "Backend 5"));
    CHECK(violates(check_backend_operations<always_succeeds>(), "Backend 6"));
    CHECK(violates(check_backend_operations<inverts_the_wrong_factor>(), "Backend 6"));
    CHECK(violates(check_backend_operations<multiplies_garbage>(), "Backend 7"));
    CHECK(violates(check_backend_operations<multiplies_coarsely>(), "Backend 7"));
    CHECK(violates(check_backend_operations<reads_lower_triangle>(), "Backend 8"));
    CHECK(violates(check_backend_operations<solves_from_the_left>(), "Backend 8"));
    CHECK(violates(check_backend_operations<throws_from_solve>(), "Backend 8"));
}

TEST_CASE("a backend that differs through quantize only is found there") {
    // Right for every matrix that the operations are tried on alone, wrong for the sizes of a layer.
    struct wrong_for_wide_results : cpu_backend {
        void multiply(floats C, const_floats A, const_floats B, float alpha, float beta) const {
            cpu_backend::multiply(C, A, B, C.rows == 24 ? 0.5f * alpha : alpha, beta);
        }
    };
    const auto found = check_backend<wrong_for_wide_results>();
    CHECK(violates(found, "Backend 9"));
    CHECK_FALSE(violates(found, "Backend 7"));
}
