// The identities that GPTQ obeys, for every combination of bits, grid, order, group size and factor path.
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <type_traits>
#include <utility>
#include <vector>

#include <gptq/gptq.hpp>
#include <gptq/reference_backend.hpp>

#include "support/catch.hpp"
#include "support/random_layer.hpp"
#include "support/schemes.hpp"

namespace {

using gptq::matrix;
using gptq::matrix_view;

constexpr std::size_t N = 12, K = 72, T = 160, block = 32;
// smaller than a block, not dividing it, the block, larger than it, one that divides nothing, one group a row
constexpr int group_sizes[] = {8, 24, 32, 64, 20, gptq::per_channel};

using gptq_test::damped_error;
using gptq_test::for_each_scheme;

std::size_t rows_that_differ(const gptq::quantized_layer& a, const gptq::quantized_layer& b) {
    std::size_t rows = 0;
    for (std::size_t n = 0; n < a.out_features(); ++n) {
        bool same = true;
        for (std::size_t k = 0; k < a.in_features(); ++k) same = same && a.codes(n, k) == b.codes(n, k);
        rows += same ? 0 : 1;
    }
    return rows;
}

gptq::quantize_options options_for(int group_size, std::size_t block_size = block) {
    return {.damp_percent = 0.01, .block_size = block_size, .group_size = group_size};
}

}  // namespace

TEST_CASE("the errors fed back sum to the trace of the damped error, exactly") {
    const auto layer = gptq_test::make_layer(N, K, T, 1);
    gptq::hessian<float> h(K);
    h.add(layer.X.view());
    for_each_scheme([&]<class S>() {
        for (const int g : group_sizes) {
            const auto direct = gptq::quantize<S>(layer.W.view(), h, options_for(g));
            const auto paper =
                gptq::quantize<S>(layer.W.view(), h, options_for(g), gptq::cpu_backend{}, gptq::paper_path{});
            const double damp = 0.01 * gptq_test::mean_diagonal(h);
            CAPTURE(S::bits, g, S::order::groups_follow_order, S::order::static_groups);
            for (const auto* q : {&direct, &paper}) {
                const double trace = damped_error(layer.W.view(), gptq::dequantize(*q), h, damp);
                CHECK(q->report.loss == Approx(trace).epsilon(1e-4));
                CHECK(q->report.damp_percent == 0.01);
                CHECK_FALSE(q->report.rounded_to_nearest);
            }
        }
    });
}

TEST_CASE("both factor paths, every block size and both backends give the same codes") {
    const auto layer = gptq_test::make_layer(N, K, T, 2);
    gptq::hessian<float> h(K);
    h.add(layer.X.view());
    gptq::basic_hessian<gptq::reference_backend> exact(K);
    exact.add(layer.X.view());
    for_each_scheme([&]<class S>() {
        for (const int g : group_sizes) {
            CAPTURE(S::bits, g, S::order::groups_follow_order, S::order::static_groups);
            const gptq::reference_backend reference;
            const auto expected = gptq::quantize<S>(layer.W.view(), exact, options_for(g), reference);
            const auto paper = gptq::quantize<S>(layer.W.view(), exact, options_for(g), reference, gptq::paper_path{});
            const auto one_block = gptq::quantize<S>(layer.W.view(), exact, options_for(g, 128), reference);
            // Products differ in their last bit, so a weight that lies on a tie may fall either way: one row at most.
            CHECK(rows_that_differ(expected, paper) <= 1);
            CHECK(rows_that_differ(expected, one_block) <= 1);
            CHECK(rows_that_differ(expected, gptq::quantize<S>(layer.W.view(), h, options_for(g))) <= 1);
            CHECK(expected.g_idx == paper.g_idx);
        }
    });
}

TEST_CASE("a Hessian that is a multiple of the identity gives round-to-nearest") {
    const auto layer = gptq_test::make_layer(N, K, T, 3);
    matrix<float> X(K, K);
    for (std::size_t k = 0; k < K; ++k) X(k, k) = 3.0f;
    gptq::hessian<float> h(K);
    h.add(X.view());
    for_each_scheme([&]<class S>() {
        for (const int g : group_sizes) {
            CAPTURE(S::bits, g);
            const auto q = gptq::quantize<S>(layer.W.view(), h, options_for(g));
            const auto rounded = gptq::round_to_nearest<S>(layer.W.view(), options_for(g));
            CHECK(q.codes == rounded.codes);
            CHECK(q.scales == rounded.scales);
            CHECK(q.zeros == rounded.zeros);
        }
    });
}

TEST_CASE("the scale of the Hessian changes nothing") {
    const auto layer = gptq_test::make_layer(N, K, T, 4);
    matrix<float> doubled = layer.X;
    for (std::size_t t = 0; t < T; ++t)
        for (std::size_t k = 0; k < K; ++k) doubled(t, k) *= 2.0f;  // a power of two: nothing is rounded differently
    gptq::hessian<float> h(K), h4(K);
    h.add(layer.X.view());
    h4.add(doubled.view());
    for_each_scheme([&]<class S>() {
        const auto a = gptq::quantize<S>(layer.W.view(), h, options_for(24));
        const auto b = gptq::quantize<S>(layer.W.view(), h4, options_for(24));
        CHECK(a.codes == b.codes);
        CHECK(b.report.loss == Approx(4.0 * a.report.loss).epsilon(1e-6));
    });
}

TEST_CASE("permuting the input features permutes the result under act-order") {
    const auto layer = gptq_test::make_layer(N, K, T, 5);
    std::vector<std::size_t> perm(K);
    for (std::size_t k = 0; k < K; ++k) perm[k] = (k * 29 + 5) % K;  // 29 and 72 have no common factor
    matrix<float> W(N, K), X(T, K);
    for (std::size_t k = 0; k < K; ++k) {
        for (std::size_t n = 0; n < N; ++n) W(n, k) = layer.W(n, perm[k]);
        for (std::size_t t = 0; t < T; ++t) X(t, k) = layer.X(t, perm[k]);
    }
    gptq::basic_hessian<gptq::reference_backend> h(K), permuted(K);  // double sums: H's entries come out equal
    h.add(layer.X.view());
    permuted.add(X.view());
    using S = gptq::scheme<4, gptq::group_size<24>, gptq::symmetric, gptq::act_order>;
    const auto a = gptq::quantize<S>(layer.W.view(), h, {}, gptq::reference_backend{});
    const auto b = gptq::quantize<S>(W.view(), permuted, {}, gptq::reference_backend{});
    CHECK(a.scales == b.scales);
    for (std::size_t k = 0; k < K; ++k) {
        CHECK(b.g_idx(k) == a.g_idx(perm[k]));
        for (std::size_t n = 0; n < N; ++n) REQUIRE(b.codes(n, k) == a.codes(n, perm[k]));
    }
}

TEST_CASE("GPTQ leaves less error in the outputs than rounding does") {
    const auto layer = gptq_test::make_layer(N, K, T, 6);
    gptq::hessian<float> h(K);
    h.add(layer.X.view());
    for_each_scheme([&]<class S>() {
        for (const int g : group_sizes) {
            CAPTURE(S::bits, g, S::order::groups_follow_order, S::order::static_groups);
            const auto q = gptq::quantize<S>(layer.W.view(), h, options_for(g));
            const auto rounded = gptq::round_to_nearest<S>(layer.W.view(), options_for(g));
            const double error = gptq::layer_error(layer.W.view(), q, h);
            CHECK(error < gptq::layer_error(layer.W.view(), rounded, h));
            // layer_error is what its comment says, computed here in double from the definition
            CHECK(error == Approx(damped_error(layer.W.view(), gptq::dequantize(q), h, 0.0)).epsilon(1e-4));
        }
    });
}

TEST_CASE("every scale can be stored as a half, every code and zero fits its bits") {
    const auto layer = gptq_test::make_layer(N, K, T, 7);
    gptq::hessian<float> h(K);
    h.add(layer.X.view());
    for_each_scheme([&]<class S>() {
        const auto q = gptq::quantize<S>(layer.W.view(), h, options_for(20));
        using turned = gptq::searched_by_loss<gptq::symmetric>;
        for (const float s : q.scales) {
            REQUIRE((std::isfinite(s) && s == gptq::round_to_half(s)));
            REQUIRE((s > 0.0f || (s < 0.0f && std::is_same_v<typename S::grid, turned>)));
        }
        for (const auto c : q.codes) REQUIRE(int{c} < (1 << S::bits));
        for (const auto z : q.zeros) REQUIRE(int{z} < (1 << S::bits));
        if (S::grid::sym)
            for (const auto z : q.zeros) REQUIRE(int{z} == 1 << (S::bits - 1));
    });
}
