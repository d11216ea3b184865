// Refinement after the loop, held to its definition: the loss falls, and nothing that it decides could be better.
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <utility>

#include <gptq/gptq.hpp>

#include "support/catch.hpp"
#include "support/random_layer.hpp"
#include "support/schemes.hpp"

namespace {

using gptq_test::damped_error;

constexpr std::size_t N = 6, K = 48, T = 120;
constexpr int group_sizes[] = {8, 20, 48, gptq::per_channel};

struct setting {
    gptq_test::random_layer layer;
    gptq::hessian<float> h{K};
    double damp = 0.0;
    explicit setting(unsigned seed) : layer(gptq_test::make_layer(N, K, T, seed)) {
        h.add(layer.X.view());
        damp = 0.01 * gptq_test::mean_diagonal(h);
    }
    template <class Q>
    double loss(const Q& q) const {
        return damped_error(layer.W.view(), gptq::dequantize(q), h, damp);
    }
};

gptq::quantize_options options_for(int group_size, gptq::refine_options refine) {
    return {.block_size = 16, .group_size = group_size, .refine = refine};
}

}  // namespace

TEST_CASE("refinement never raises the loss, and reports what is left of it") {
    const setting s(11);
    int lowered = 0, tried = 0;
    gptq_test::for_each_scheme([&]<class S>() {
        for (const int g : group_sizes) {
            CAPTURE(S::bits, g, S::order::groups_follow_order, S::order::static_groups);
            const double plain = s.loss(gptq::quantize<S>(s.layer.W.view(), s.h, options_for(g, {})));
            for (const auto& refine : {gptq::refine_options{2, true, true}, {2, true, false}, {2, false, true}}) {
                const auto q = gptq::quantize<S>(s.layer.W.view(), s.h, options_for(g, refine));
                const double refined = s.loss(q);
                CAPTURE(refine.scales, refine.codes);
                CHECK(refined <= plain * (1.0 + 1e-5));
                CHECK(q.report.loss == Approx(refined).epsilon(1e-3));
                ++tried;
                lowered += refined < plain ? 1 : 0;
            }
        }
    });
    CHECK(lowered > tried / 2);
}

TEST_CASE("both factor paths refine alike") {
    const setting s(12);
    using S = gptq::scheme<3, gptq::group_size<gptq::dynamic>, gptq::asymmetric, gptq::group_aware_order>;
    const auto options = options_for(20, {3, true, true});
    const auto direct = gptq::quantize<S>(s.layer.W.view(), s.h, options);
    const auto paper = gptq::quantize<S>(s.layer.W.view(), s.h, options, gptq::cpu_backend{}, gptq::paper_path{});
    CHECK(s.loss(direct) == Approx(s.loss(paper)).epsilon(0.02));
    CHECK(direct.report.loss == Approx(s.loss(direct)).epsilon(1e-3));
    CHECK(paper.report.loss == Approx(s.loss(paper)).epsilon(1e-3));
}

TEST_CASE("when sweeps over the codes have settled, no single code could be better") {
    const setting s(13);
    gptq_test::for_each_scheme([&]<class S>() {
        CAPTURE(S::bits, S::order::groups_follow_order, S::order::static_groups);
        auto q = gptq::quantize<S>(s.layer.W.view(), s.h, options_for(20, {60, false, true}));
        const double settled = s.loss(q);
        for (std::size_t n = 0; n < N; n += 5)
            for (std::size_t k = 0; k < K; ++k)
                for (const int step : {-1, 1}) {
                    const std::uint8_t code = q.codes(n, k);
                    const int changed = code + step;
                    if (changed < 0 || changed >= (1 << S::bits)) continue;
                    q.codes(n, k) = static_cast<std::uint8_t>(changed);
                    REQUIRE(s.loss(q) >= settled * (1.0 - 1e-5));
                    q.codes(n, k) = code;
                }
    });
}

TEST_CASE("a refitted scale is the least-squares one, as near as a half comes to it, of either sign") {
    const setting s(14);
    std::size_t negative = 0;
    const auto check = [&]<class Grid>() {
        using S = gptq::scheme<4, gptq::group_size<gptq::per_channel>, Grid>;
        const auto q = gptq::quantize<S>(s.layer.W.view(), s.h, options_for(gptq::per_channel, {1, true, false}));
        for (std::size_t n = 0; n < N; ++n) {
            double wc = 0.0, cc = 0.0;  // w H c and c H c, c the codes less their zero point
            for (std::size_t i = 0; i < K; ++i)
                for (std::size_t j = 0; j < K; ++j) {
                    const double H = double{i <= j ? s.h.upper()(i, j) : s.h.upper()(j, i)} + (i == j ? s.damp : 0.0);
                    wc += double{s.layer.W(n, i)} * H * (q.codes(n, j) - 8.0);
                    cc += (q.codes(n, i) - 8.0) * H * (q.codes(n, j) - 8.0);
                }
            CHECK(double{q.scales(n, 0)} == Approx(wc / cc).epsilon(1e-3));  // a half has 11 bits
            negative += q.scales(n, 0) < 0.0f;
        }
    };
    check.operator()<gptq::symmetric>();
    CHECK(negative == 0);
    check.operator()<gptq::searched_by_loss<gptq::symmetric>>();
    CHECK(negative > 0);
    CHECK(negative < N);
}

TEST_CASE("a refitted asymmetric grid stays in its format, and no scale nearby is better") {
    const setting s(15);
    using S = gptq::scheme<2, gptq::group_size<gptq::per_channel>, gptq::asymmetric_from_one>;
    auto q = gptq::quantize<S>(s.layer.W.view(), s.h, options_for(gptq::per_channel, {30, true, false}));
    const double refined = s.loss(q);
    for (std::size_t n = 0; n < N; ++n) {
        CHECK(q.zeros(n, 0) >= 1);
        const auto scale = q.scales(n, 0);
        for (const float factor : {0.99f, 1.01f}) {
            q.scales(n, 0) = gptq::round_to_half(scale * factor);
            CHECK(s.loss(q) >= refined);
        }
        q.scales(n, 0) = scale;
    }
}

TEST_CASE("refinement improves on round-to-nearest, too") {
    const setting s(16);
    using S = gptq::scheme<3, gptq::group_size<16>, gptq::symmetric>;
    const auto options = options_for(16, {5, true, true});
    auto q = gptq::round_to_nearest<S>(s.layer.W.view());
    const double before = s.loss(q);
    const auto f = gptq::factorize<S>(s.h, options);
    const double after = gptq::refine<3>(s.layer.W.view(), f, q.view(), options, gptq::symmetric{});
    CHECK(after == Approx(s.loss(q)).epsilon(1e-3));
    CHECK(after < 0.7 * before);
}
