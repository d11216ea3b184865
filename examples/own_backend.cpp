// A backend of one's own: plain loops, with rows spread over threads.
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <future>
#include <iostream>
#include <vector>

#include <gptq/gptq.hpp>
#include <gptq/testing/conformance.hpp>

#include "check.hpp"
#include "random_layer.hpp"

using floats = gptq::matrix_view<float>;
using const_floats = gptq::matrix_view<const float>;

template <class Term>
double sum(std::size_t n, const Term& term) {
    double total = 0.0;
    for (std::size_t i = 0; i < n; ++i) total += term(i);
    return total;
}

//! [rows]
struct threaded_backend : gptq::host_memory {  // its matrices lie in host memory
    template <class F>
    void for_each_row(std::size_t n, const F& f) const {
        constexpr std::size_t threads = 2;
        std::vector<std::future<void>> workers;  // get() throws what a worker threw
        for (std::size_t first = 0; first < std::min(threads, n); ++first)
            workers.push_back(std::async(std::launch::async, [=, &f] {
                for (std::size_t r = first; r < n; r += threads) f(r);
            }));
        for (std::future<void>& worker : workers) worker.get();
    }
    //! [rows]
    //! [products]
    void gram_update(floats H, const_floats X, float alpha, float beta) const {
        for_each_row(H.rows, [=](std::size_t i) {
            for (std::size_t j = i; j < H.cols; ++j) {
                const double dot = sum(X.rows, [=](std::size_t t) { return double{X(t, i)} * X(t, j); });
                H(i, j) = static_cast<float>(alpha * dot) + (beta == 0.0f ? 0.0f : beta * H(i, j));
            }
        });
    }
    void multiply(floats C, const_floats A, const_floats B, float alpha, float beta) const {
        for_each_row(C.rows, [=](std::size_t i) {
            for (std::size_t j = 0; j < C.cols; ++j) {
                const double dot = sum(A.cols, [=](std::size_t m) { return double{A(i, m)} * B(m, j); });
                C(i, j) = static_cast<float>(alpha * dot) + (beta == 0.0f ? 0.0f : beta * C(i, j));
            }
        });
    }
    void solve_upper_right(floats B, const_floats A) const {
        for_each_row(B.rows, [=](std::size_t r) {
            for (std::size_t j = 0; j < B.cols; ++j) {
                const double known = sum(j, [=](std::size_t m) { return double{B(r, m)} * A(m, j); });
                B(r, j) = static_cast<float>((B(r, j) - known) / A(j, j));
            }
        });
    }
    //! [products]
    //! [factors]
    bool factor_upper(floats H) const {  // H = A A', from the last column to the first, each from its diagonal up
        for (std::size_t j = H.rows; j-- > 0;) {
            for (std::size_t i = j + 1; i-- > 0;) {
                const double known =
                    sum(H.rows - j - 1, [=](std::size_t m) { return double{H(i, j + 1 + m)} * H(j, j + 1 + m); });
                if (i == j && !(H(j, j) - known > 0.0 && std::isfinite(H(j, j) - known))) return false;
                H(i, j) = static_cast<float>(i == j ? std::sqrt(H(j, j) - known) : (H(i, j) - known) / H(j, j));
            }
            for (std::size_t i = j + 1; i < H.rows; ++i) H(i, j) = 0.0f;
        }
        return true;
    }
    bool inverse_factor_upper(floats H) const {  // H = A A' makes U = A^-1
        if (!factor_upper(H)) return false;
        auto U = make_matrix<float>(H.rows, H.cols);
        for (std::size_t i = 0; i < H.rows; ++i) U(i, i) = 1.0f;
        solve_upper_right(U.view(), H);
        download(U.view(), H);
        return true;
    }
    //! [factors]
};

static_assert(gptq::Backend<threaded_backend>);

int main() {
    //! [check]
    check_conforms(gptq::testing::check_backend(threaded_backend{}));
    //! [check]

    //! [use]
    using w3 = gptq::scheme<3, gptq::group_size<32>, gptq::asymmetric>;
    const auto W = random_matrix(32, 128, 1), X = random_inputs(512, 128, 2);
    gptq::basic_hessian<threaded_backend> h(128);
    h.add(X);
    const double error = gptq::layer_error(W, gptq::quantize<w3>(W, h), h);
    const double usual = gptq::layer_error(W, gptq::quantize<w3>(W, h, {}, gptq::cpu_backend{}), h);
    //! [use]
    std::cout << "error of the outputs: " << error << ", on the library's backend: " << usual << '\n';
    check(std::fabs(error - usual) <= 0.02 * usual, "both backends quantize alike");
}
