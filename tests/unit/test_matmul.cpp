// prepare and matmul against the product with the dequantized weights, in double.
#include <cmath>
#include <cstddef>
#include <random>

#include <gptq/gptq.hpp>

#include "support/catch.hpp"
#include "support/random_layer.hpp"

namespace {

/// max |Y - X Wq'| over the largest entry, everything in double.
double worst_error(gptq::matrix_view<const float> X, const gptq::tensor2<float>& Wq, const gptq::tensor2<float>& Y) {
    double worst = 0.0, largest = 0.0;
    for (std::size_t t = 0; t < X.rows; ++t)
        for (std::size_t n = 0; n < Wq.shape()[0]; ++n) {
            double sum = 0.0;
            for (std::size_t k = 0; k < X.cols; ++k) sum += double{X(t, k)} * double{Wq(n, k)};
            worst = std::max(worst, std::fabs(sum - double{Y(t, n)}));
            largest = std::max(largest, std::fabs(sum));
        }
    return worst / largest;
}

template <class S>
void check(int group_size, std::size_t tokens, std::size_t N, std::size_t K) {
    const auto layer = gptq_test::make_layer(N, K, K + 40, 1);
    gptq::hessian<float> h(K);
    h.add(layer.X.view());
    const auto q = gptq::quantize<S>(layer.W.view(), h, {.group_size = group_size});
    const auto Wq = gptq::dequantize(q);
    const auto X = layer.X.view().block(0, tokens, 0, K);
    CAPTURE(S::bits, group_size, tokens, N, K);
    CHECK(worst_error(X, Wq, gptq::matmul(X, gptq::prepare<gptq::activation::exact>(q))) < 1e-5);
    const double int16 = worst_error(X, Wq, gptq::matmul(X, gptq::prepare<gptq::activation::int16>(q)));
    const double int8 = worst_error(X, Wq, gptq::matmul(X, gptq::prepare<gptq::activation::int8>(q)));
    CHECK(int16 < 1e-4);
    CHECK(int8 < 3e-2);
    CHECK(int16 < int8);  // they are different things
}

}  // namespace

TEST_CASE("matmul is the product with the dequantized weights, for every scheme and shape") {
    using gptq::scheme;
    using dynamic = gptq::group_size<gptq::dynamic>;
    for (const std::size_t tokens : {1u, 2u, 33u})
        for (const int g : {8, 32, 39, gptq::per_channel}) {
            check<scheme<2, dynamic, gptq::asymmetric, gptq::act_order>>(g, tokens, 65, 72);
            check<scheme<3, dynamic, gptq::symmetric, gptq::natural_order>>(g, tokens, 7, 41);
            check<scheme<4, dynamic, gptq::asymmetric, gptq::natural_order>>(g, tokens, 128, 64);
            check<scheme<4, dynamic, gptq::symmetric, gptq::act_order>>(g, tokens, 1, 96);
            check<scheme<8, dynamic, gptq::asymmetric, gptq::act_order_static>>(g, tokens, 70, 40);
        }
}

TEST_CASE("a g_idx in any order, groups of any size, also empty ones") {
    std::mt19937 random(3);
    gptq::quantized_layer q;
    gptq::allocate(q, 4, false, 5, 24, 8);
    for (auto& c : q.codes) c = static_cast<std::uint8_t>(random() % 16);
    for (auto& z : q.zeros) z = static_cast<std::uint8_t>(random() % 16);
    for (auto& s : q.scales) s = 0.25f * static_cast<float>(1 + random() % 7);
    for (auto& g : q.g_idx) g = static_cast<std::int32_t>(random() % 2) * 2;  // group 1 stays empty
    gptq::matrix<float> X(3, 24);
    for (std::size_t i = 0; i < 72; ++i) X.data()[i] = static_cast<float>(random() % 100) - 50.0f;
    const auto Y = gptq::matmul(X.view(), gptq::prepare<gptq::activation::exact>(q));
    CHECK(worst_error(X.view(), gptq::dequantize(q), Y) < 1e-6);
}

TEST_CASE("what prepare and matmul refuse") {
    gptq::quantized_layer q;
    gptq::allocate(q, 4, true, 2, 8, 4);
    q.codes.fill(8);
    q.scales.fill(1.0f);
    q.zeros.fill(8);
    const auto m = gptq::prepare<gptq::activation::exact>(q);
    const gptq::matrix<float> X(3, 7);
    CHECK_THROWS_AS(gptq::matmul(X.view(), m), gptq::shape_error);
    q.g_idx(5) = 2;
    CHECK_THROWS_AS(gptq::prepare<gptq::activation::exact>(q), gptq::shape_error);
    q.g_idx(5) = -1;
    CHECK_THROWS_AS(gptq::prepare<gptq::activation::exact>(q), gptq::shape_error);
}
