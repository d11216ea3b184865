// check_backend: holds a Backend to its sentences in <gptq/concepts.hpp>, with reference_backend as the oracle.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <initializer_list>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include <gptq/concepts.hpp>
#include <gptq/error.hpp>
#include <gptq/factor.hpp>
#include <gptq/grids/affine.hpp>
#include <gptq/groups.hpp>
#include <gptq/hessian.hpp>
#include <gptq/layer_error.hpp>
#include <gptq/matrix_view.hpp>
#include <gptq/observer.hpp>
#include <gptq/options.hpp>
#include <gptq/orders.hpp>
#include <gptq/quantized.hpp>
#include <gptq/reference_backend.hpp>
#include <gptq/refine.hpp>
#include <gptq/testing/violations.hpp>

namespace gptq::testing {

namespace detail {

/// Adds 1 to row r; rows that were visited once hold 1.
struct count_visit {
    matrix_view<float> visits;  // [n + 1, 1]
    constexpr void operator()(std::size_t r) const noexcept { visits(r, 0) += 1.0f; }
};

/// `inner` with three rows and five columns of `guard` around it: operations get views of the inside, whose ld is
/// larger than their number of columns.
inline matrix<float> padded(const matrix<float>& inner, float guard) {
    matrix<float> m(inner.rows() + 3, inner.cols() + 5);
    std::fill_n(m.data(), m.rows() * m.cols(), guard);
    for (std::size_t r = 0; r < inner.rows(); ++r)
        for (std::size_t c = 0; c < inner.cols(); ++c) m(r + 1, c + 2) = inner(r, c);
    return m;
}

template <class T>
matrix_view<T> inside(matrix_view<T> m) {
    return m.block(1, m.rows - 3, 2, m.cols - 5);
}

/// A copy of a host matrix that the backend may write to.
template <class B>
auto to_backend(const B& backend, const matrix<float>& host) {
    auto mine = backend.template make_matrix<float>(host.rows(), host.cols());
    const auto lent = backend.lend(host.view());
    backend.for_each_row(host.rows(), gptq::detail::copy_row{lent.view(), mine.view()});
    return mine;
}

/// The matrices that an operation gets: target is written, a and b are read.
struct operands {
    matrix<float> target;
    matrix<float> a{1, 1};
    matrix<float> b{1, 1};
};

struct outcome {
    bool done = true;   ///< what a factorization returned
    matrix<float> all;  ///< the target with its padding
};

template <class B, class Operation>
outcome run_on(const B& backend, const operands& in, const Operation& operation) {
    constexpr float poison = std::numeric_limits<float>::quiet_NaN();  // nobody may read beside the operands
    auto target = to_backend(backend, padded(in.target, 4321.0f));
    const auto a = to_backend(backend, padded(in.a, poison)), b = to_backend(backend, padded(in.b, poison));
    outcome result{.all = matrix<float>(in.target.rows() + 3, in.target.cols() + 5)};
    result.done = operation(backend, inside(target.view()), inside(matrix_view<const float>(a.view())),
                            inside(matrix_view<const float>(b.view())));
    backend.download(target.view(), result.all.view());
    return result;
}

/// A symmetric positive definite matrix with a condition number below 100; NaN below the diagonal, where nobody looks.
inline matrix<float> positive_definite(std::size_t K, random_numbers& random) {
    const matrix<float> X = random.reals(2 * K + 3, K);
    matrix<float> H(K, K);
    reference_backend{}.gram_update(H.view(), X.view(), 1.0f / static_cast<float>(2 * K + 3), 0.0f);
    for (std::size_t i = 0; i < K; ++i) {
        H(i, i) += 0.2f;
        for (std::size_t j = 0; j < i; ++j) H(i, j) = std::numeric_limits<float>::quiet_NaN();
    }
    return H;
}

/// A quantized layer in plain host memory.
struct host_layer {
    matrix<std::uint8_t> codes;
    matrix<float> scales;
    matrix<std::uint8_t> zeros;
    std::vector<std::int32_t> g_idx;

    host_layer(std::size_t N, std::size_t K, std::size_t G) : codes(N, K), scales(N, G), zeros(N, G), g_idx(K) {}
    quantized_view view() { return {codes.view(), scales.view(), zeros.view(), g_idx}; }
    const_quantized_view view() const { return {codes.view(), scales.view(), zeros.view(), g_idx}; }
};

template <class B>
class backend_check : findings {
 public:
    explicit backend_check(const B& backend) : findings("Backend"), backend_(backend) {}

    violations operations() {
        attempt(1, [&] { check_memory(); });
        attempt(3, [&] { check_rows(); });
        attempt(4, [&] { check_gram_update(); });
        attempt(5, [&] { check_factor(5, [](auto& b, auto H, auto, auto) { return b.factor_upper(H); }); });
        attempt(6, [&] { check_factor(6, [](auto& b, auto H, auto, auto) { return b.inverse_factor_upper(H); }); });
        attempt(7, [&] { check_multiply(); });
        attempt(8, [&] { check_solve(); });
        return take();
    }

    violations all() {
        violations found = operations();
        attempt(9, [&] { check_quantize(inverse_free_path{}, "without an inverse"); });
        attempt(9, [&] { check_quantize(paper_path{}, "the paper's path"); });
        attempt(10, [&] {
            check_quantize_in<natural_order, searched_by_loss<symmetric>>(10, inverse_free_path{},
                                                                          "grids searched by the loss, 2 candidates",
                                                                          {.block_size = 32, .candidates = 2});
        });
        const violations more = take();
        found.insert(found.end(), more.begin(), more.end());
        return found;
    }

 private:
    // --- 1, 2: memory ------------------------------------------------------------------------------------------------

    void check_memory() {
        check_memory_of<float>("float");
        check_memory_of<double>("double");
        check_memory_of<std::uint8_t>("std::uint8_t");
        check_memory_of<std::size_t>("std::size_t");
    }

    template <class T>
    void check_memory_of(const std::string& type) {
        const std::string of = "of " + type + " [5, 7] ";
        auto made = backend_.template make_matrix<T>(5, 7);
        if (made.view().rows != 5 || made.view().cols != 7) return report(1, "make_matrix " + of + "has other shape");
        matrix<T> host(9, 11);
        std::fill_n(host.data(), host.rows() * host.cols(), T{1});
        const auto part = host.view().block(2, 5, 3, 7);
        backend_.download(matrix_view<const T>(made.view()), part);
        for (std::size_t r = 0; r < host.rows(); ++r)
            for (std::size_t c = 0; c < host.cols(); ++c) {
                const bool copied = r >= 2 && r < 7 && c >= 3 && c < 10;
                if (copied && host(r, c) != T{0}) return report(1, "make_matrix " + of + "is not zeroed");
                if (!copied && host(r, c) != T{1}) return report(2, "download " + of + "writes beside its target");
            }
        for (std::size_t i = 0; i < 35; ++i) part(i / 7, i % 7) = static_cast<T>(i + 1);
        const auto lent = backend_.lend(matrix_view<const T>(part));
        matrix<T> back(5, 7);
        backend_.download(matrix_view<const T>(lent.view()), back.view());
        for (std::size_t i = 0; i < 35; ++i)
            if (back(i / 7, i % 7) != static_cast<T>(i + 1))
                return report(2, "what is lent " + of + "comes back otherwise");
    }

    // --- 3: rows -----------------------------------------------------------------------------------------------------

    void check_rows() {
        for (const std::size_t n : {0u, 1u, 2u, 7u, 64u, 1001u}) {
            auto visits = backend_.template make_matrix<float>(n + 1, 1);
            backend_.for_each_row(n, count_visit{visits.view()});
            matrix<float> host(n + 1, 1);
            backend_.download(visits.view(), host.view());
            for (std::size_t r = 0; r <= n; ++r)
                if (const float expected = r < n ? 1.0f : 0.0f; host(r, 0) != expected)
                    return report(3, "for_each_row(" + std::to_string(n) + ") visits row " + std::to_string(r) + " " +
                                         std::to_string(static_cast<int>(host(r, 0))) + " times");
        }
    }

    // --- 4 to 8: arithmetic, against the reference -------------------------------------------------------------------

    void check_gram_update() {
        random_numbers random(4);
        for (const auto& [T, K] : {std::pair{1u, 1u}, {5u, 1u}, {1u, 6u}, {3u, 2u}, {13u, 7u}, {70u, 33u}, {32u, 64u}})
            for (const auto& [alpha, beta] : {std::pair{1.0f, 0.0f}, {0.5f, 0.25f}, {2.0f, 1.0f}}) {
                operands in{.target = random.reals(K, K), .a = random.reals(T, K)};
                compare(4, "gram_update, X " + shape_string(T, K) + ", beta " + (beta == 0.0f ? "0" : "not 0"), in, T,
                        [alpha = alpha, beta = beta](auto& b, auto H, auto X, auto) {
                            b.gram_update(H, X, alpha, beta);
                            return true;
                        });
            }
    }

    template <class Factor>
    void check_factor(int sentence, const Factor& factor) {
        const std::string name = sentence == 5 ? "factor_upper" : "inverse_factor_upper";
        random_numbers random(5);
        for (const std::size_t K : {1u, 2u, 5u, 16u, 33u, 70u})
            compare(sentence, name + ", K = " + std::to_string(K), {.target = positive_definite(K, random)}, K, factor);
        constexpr float inf = std::numeric_limits<float>::infinity(), nan = std::numeric_limits<float>::quiet_NaN();
        for (const std::size_t K : {1u, 2u, 9u, 40u})
            for (const std::size_t row : {std::size_t{0}, K / 2, K - 1})
                for (const float bad : {0.0f, -1.0f, -inf, nan, 100.0f}) {
                    operands in{.target = positive_definite(K, random)};
                    // A large element beside the diagonal makes H indefinite; on the diagonal it would not.
                    if (bad == 100.0f && row + 1 == K) continue;
                    in.target(row, bad == 100.0f ? K - 1 : row) = bad;
                    if (run_on(backend_, in, factor).done)
                        return report(sentence, name + " returns true for a matrix with " + text(bad) + " at " +
                                                    shape_string(row, bad == 100.0f ? K - 1 : row) +
                                                    ", K = " + std::to_string(K) + ", which is not positive definite");
                }
    }

    void check_multiply() {
        random_numbers random(7);
        struct sizes {
            std::size_t M, K, N;
        };
        for (const auto& [M, K, N] : {sizes{1, 1, 1}, {1, 9, 4}, {6, 1, 5}, {7, 33, 1}, {13, 70, 31}, {64, 32, 48}})
            for (const auto& [alpha, beta] : {std::pair{1.0f, 0.0f}, {-1.0f, 1.0f}, {0.5f, 2.0f}}) {
                operands in{random.reals(M, N), random.reals(M, K), random.reals(K, N)};
                if (beta == 0.0f) std::fill_n(in.target.data(), M * N, std::numeric_limits<float>::quiet_NaN());
                compare(7,
                        "multiply, A " + shape_string(M, K) + ", B " + shape_string(K, N) +
                            (beta == 0.0f ? ", beta 0 over a C of NaN" : ", beta not 0"),
                        in, K, [alpha = alpha, beta = beta](auto& b, auto C, auto A, auto B_) {
                            b.multiply(C, A, B_, alpha, beta);
                            return true;
                        });
            }
    }

    void check_solve() {
        random_numbers random(8);
        for (const auto& [N, K] : {std::pair{1u, 1u}, {1u, 7u}, {6u, 1u}, {5u, 33u}, {31u, 16u}, {48u, 64u}}) {
            matrix<float> A = positive_definite(K, random);  // upper triangle: any well-conditioned numbers will do
            for (std::size_t i = 0; i < K; ++i) A(i, i) += 1.0f;
            compare(8, "solve_upper_right, B " + shape_string(N, K), {random.reals(N, K), A}, K,
                    [](auto& b, auto B_, auto A_, auto) {
                        b.solve_upper_right(B_, A_);
                        return true;
                    });
        }
    }

    /// Runs `operation` on both backends. Elements that the reference leaves alone or makes 0 must be the same exactly,
    /// others within float rounding of sums over `inner` terms.
    template <class Operation>
    void compare(int sentence, const std::string& what, const operands& in, std::size_t inner,
                 const Operation& operation) {
        const outcome expected = run_on(reference_backend{}, in, operation), got = run_on(backend_, in, operation);
        if (got.done != expected.done) return report(sentence, what + ": returns false for a positive definite matrix");
        const matrix<float> before = padded(in.target, 4321.0f);
        float largest = 0.0f;
        const auto result = inside(expected.all.view());
        for (std::size_t r = 0; r < result.rows; ++r)
            for (const float x : result.row(r)) largest = std::max(largest, std::fabs(x));
        const float slack = 4.0f * std::numeric_limits<float>::epsilon() * static_cast<float>(inner + 16) * largest;
        for (std::size_t r = 0; r < before.rows(); ++r)
            for (std::size_t c = 0; c < before.cols(); ++c) {
                const float e = expected.all(r, c), g = got.all(r, c);
                const bool exact = e == before(r, c) || e == 0.0f;
                if (exact ? g == e : std::fabs(g - e) <= slack) continue;
                const bool outside = r < 1 || r > result.rows || c < 2 || c > result.cols + 1;
                return report(sentence, what + ": element " +
                                            (outside ? "outside of the result" : shape_string(r - 1, c - 2)) + " is " +
                                            text(g) + ", the reference has " + text(e));
            }
    }

    // --- all of them together ----------------------------------------------------------------------------------------

    template <class Path>
    void check_quantize(const Path& path, const std::string& path_name) {
        const quantize_options options{.block_size = 32};
        check_quantize_in<natural_order, symmetric>(9, path, path_name + ", natural order", options);
        check_quantize_in<act_order, symmetric>(9, path, path_name + ", act order", options);
        check_quantize_in<act_order_static, symmetric>(9, path, path_name + ", static groups", options);
        check_quantize_in<group_aware_order, symmetric>(9, path, path_name + ", group-aware order", options);
    }

    /// Quantizes a ragged layer here and on the reference. Rounding may turn a tie, and what follows it in its row, so
    /// nearly all codes must be equal, and the error of the layer's outputs.
    template <class Order, class Grid, class Path>
    void check_quantize_in(int sentence, const Path& path, const std::string& name, const quantize_options& options) {
        constexpr std::size_t N = 24, K = 100, T = 300;
        random_numbers random(9);
        const matrix<float> W = random.reals(N, K);
        matrix<float> X = random.reals(T, K);
        for (std::size_t t = 0; t < T; ++t)  // features that are correlated, unequal, and one that is dead
            for (std::size_t k = 1; k < K; ++k)
                X(t, k) = k == 41 ? 0.0f : 0.6f * X(t, k - 1) + X(t, k) * static_cast<float>(1 + k * 7 % 5);
        const auto expected = quantize_on<Order, Grid>(reference_backend{}, path, W, X, options);
        const auto got = quantize_on<Order, Grid>(backend_, path, W, X, options);
        std::size_t different = 0;
        for (std::size_t i = 0; i < N * K; ++i) different += got.codes.data()[i] != expected.codes.data()[i];
        if (different * 50 > N * K)
            report(sentence, "quantize, " + name + ": " + std::to_string(different) + " of " + std::to_string(N * K) +
                                 " codes differ from the reference's");
        const double error = error_of(W, X, got), reference_error = error_of(W, X, expected);
        if (!(std::fabs(error - reference_error) <= 0.01 * reference_error))
            report(sentence, "quantize, " + name + ": the outputs' error is " + text(static_cast<float>(error)) +
                                 ", the reference's " + text(static_cast<float>(reference_error)));
    }

    template <class Order, class Grid, class Any, class Path>
    static host_layer quantize_on(const Any& backend, const Path& path, const matrix<float>& W, const matrix<float>& X,
                                  const quantize_options& options) {
        constexpr std::size_t group_features = 16;
        basic_hessian<Any> h(X.cols(), backend);
        h.add(X.view().block(0, 100, 0, X.cols()));
        h.add(X.view().block(100, X.rows() - 100, 0, X.cols()));
        const auto f = factor_hessian<Order>(backend, h.upper(), group_features, options, path);
        host_layer q(W.rows(), W.cols(), group_count(W.cols(), group_features));
        no_observer observer;
        solve_and_refine<4>(W.view(), f, q.view(), options, observer, Grid{});
        return q;
    }

    static double error_of(const matrix<float>& W, const matrix<float>& X, const host_layer& q) {
        basic_hessian<reference_backend> h(X.cols());
        h.add(X.view());
        matrix<float> D(W.rows(), W.cols());
        dequantize_into<symmetric, 4>(q.view(), D.view());
        for (std::size_t n = 0; n < W.rows(); ++n)
            for (std::size_t k = 0; k < W.cols(); ++k) D(n, k) = W(n, k) - D(n, k);
        return output_error(std::as_const(D).view(), h);
    }

    const B& backend_;
};

}  // namespace detail

/// Holds `backend` to sentences 1 to 9 of Backend: every operation on ragged shapes and on views with ld > cols against
/// reference_backend, factorizations of matrices that are not positive definite, and quantize() on both paths and in
/// all orders. Takes about a second.
template <Backend B>
[[nodiscard]] violations check_backend(const B& backend = {}) {
    return detail::backend_check<B>(backend).all();
}

/// The part of check_backend that needs no solver: sentences 1 to 8. It compiles in a fraction of the time.
template <Backend B>
[[nodiscard]] violations check_backend_operations(const B& backend = {}) {
    return detail::backend_check<B>(backend).operations();
}

}  // namespace gptq::testing
