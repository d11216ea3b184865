// The Hessian against its definition, from every kind of matrix, and what it refuses.
#include <cstddef>
#include <limits>
#include <string>
#include <utility>

#include <gptq/gptq.hpp>
#include <gptq/reference_backend.hpp>

#include "support/catch.hpp"
#include "support/message.hpp"
#include "support/random_layer.hpp"

#if __has_include(<xtensor/views/xview.hpp>)
#include <xtensor/views/xview.hpp>
#else
#include <xtensor/xview.hpp>
#endif

namespace {

constexpr std::size_t K = 19, T = 70;

template <gptq::Backend B>
void check_against_definition(const gptq::basic_hessian<B>& h, const gptq::matrix<float>& X, double factor = 1.0) {
    REQUIRE(h.samples() == X.rows());
    for (std::size_t i = 0; i < X.cols(); ++i)
        for (std::size_t j = i; j < X.cols(); ++j) {
            double sum = 0.0;
            for (std::size_t t = 0; t < X.rows(); ++t) sum += double{X(t, i)} * double{X(t, j)};
            const double expected = factor * 2.0 * sum / static_cast<double>(X.rows());
            REQUIRE(h.upper()(i, j) == Approx(expected).epsilon(1e-4).margin(1e-4));
        }
}

}  // namespace

TEST_CASE("H = 2/T X'X, in one batch or many") {
    const auto layer = gptq_test::make_layer(1, K, T, 1);
    gptq::hessian<float> whole(K), parts(K);
    whole.add(layer.X.view());
    check_against_definition(whole, layer.X);
    for (std::size_t first = 0, n = 1; first < T; first += n, n = std::min<std::size_t>(n * 2 + 1, T - first))
        parts.add(layer.X.view().block(first, n, 0, K));
    check_against_definition(parts, layer.X);
    parts.add(layer.X.view().block(0, 0, 0, K));  // no tokens: nothing happens
    CHECK(parts.samples() == T);
    gptq::basic_hessian<gptq::reference_backend> reference(K);
    reference.add(layer.X.view());
    check_against_definition(reference, layer.X);
}

TEMPLATE_TEST_CASE("inputs held in 16 bits count as the floats that they are", "", gptq::half, gptq::bfloat16) {
    constexpr std::size_t many = 1300;  // several pieces, the last one short
    const auto layer = gptq_test::make_layer(1, K, many, 3);
    gptq::matrix<TestType> narrow(many, K);
    gptq::matrix<float> X(many, K);
    for (std::size_t t = 0; t < many; ++t)
        for (std::size_t k = 0; k < K; ++k) {
            narrow(t, k) = gptq::narrow<TestType>(layer.X(t, k));
            X(t, k) = gptq::to_float(narrow(t, k));
        }
    gptq::hessian<float> h(K);
    h.add(std::as_const(narrow).view());
    check_against_definition(h, X);

    narrow(1200, 7) = gptq::narrow<TestType>(std::numeric_limits<float>::infinity());
    CHECK_THROWS_AS(h.add(std::as_const(narrow).view()), gptq::non_finite_error);
    CHECK(h.samples() == many);
    gptq::hessian<float> other(K + 1);
    CHECK_THROWS_AS(other.add(std::as_const(narrow).view()), gptq::shape_error);
}

TEST_CASE("Hessians of parts of the tokens merge into that of all") {
    const auto layer = gptq_test::make_layer(1, K, T, 2);
    gptq::hessian<float> first(K), second(K), none(K);
    first.add(layer.X.view().block(0, 7, 0, K));
    second.add(layer.X.view().block(7, T - 7, 0, K));
    first.merge(second);
    first.merge(none);
    CHECK(first.samples() == T);
    check_against_definition(first, layer.X);
    none.merge(first);
    check_against_definition(none, layer.X);
    CHECK_THROWS_AS(none.merge(gptq::hessian<float>(K + 1)), gptq::shape_error);
}

TEST_CASE("inputs may be any xtensor container, view, or expression") {
    const auto layer = gptq_test::make_layer(1, K, T, 2);
    auto X = gptq::make_tensor2<float>(T, K + 3);
    xt::xtensor<float, 2, xt::layout_type::column_major> columns({T, K});
    for (std::size_t t = 0; t < T; ++t)
        for (std::size_t k = 0; k < K + 3; ++k) {
            X(t, k) = k < K ? layer.X(t, k) : 1e6f;
            if (k < K) columns(t, k) = layer.X(t, k);
        }
    gptq::hessian<float> from_view(K), from_columns(K), from_expression(K), from_rows(K);
    from_view.add(xt::view(X, xt::all(), xt::range(0, K)));
    check_against_definition(from_view, layer.X);
    from_columns.add(columns);
    check_against_definition(from_columns, layer.X);
    from_expression.add(2.0f * columns);
    check_against_definition(from_expression, layer.X, 4.0);
    for (std::size_t t = 0; t < T; t += 2) from_rows.add(xt::view(X, xt::range(t, t + 2), xt::range(0, K)));
    check_against_definition(from_rows, layer.X);
}

TEST_CASE("what a Hessian refuses, and what it says") {
    CHECK_THROWS_AS(gptq::hessian<float>(0), gptq::shape_error);
    gptq::hessian<float> h(3);
    const gptq::matrix<float> wide(2, 4);
    CHECK_THROWS_AS(h.add(wide.view()), gptq::shape_error);
    const std::string refused = gptq_test::message_of([&] { h.add(wide.view()); });
    CHECK(gptq_test::mentions(refused, "[2, 4]"));
    CHECK(gptq_test::mentions(refused, "in_features is 3"));
    gptq::matrix<float> X(5, 3);
    for (const float poison : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
        X(4, 1) = poison;
        CHECK_THROWS_AS(h.add(X.view()), gptq::non_finite_error);
        CHECK(gptq_test::mentions(gptq_test::message_of([&] { h.add(X.view()); }), "token 4, feature 1"));
        CHECK(h.samples() == 0);
    }
    X(4, 1) = 1e30f;  // finite, but not its square
    h.add(X.view());
    using S = gptq::scheme<4, gptq::group_size<gptq::per_channel>>;
    CHECK_THROWS_AS(gptq::factorize<S>(h), gptq::non_finite_error);
}
