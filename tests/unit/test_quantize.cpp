// The surface: damping, dead inputs, fallbacks, shared factors, observers, and what is refused.
#include <cmath>
#include <cstddef>
#include <limits>
#include <string>
#include <vector>

#include <gptq/gptq.hpp>
#include <gptq/reference_backend.hpp>

#include "support/catch.hpp"
#include "support/message.hpp"
#include "support/random_layer.hpp"
#include "support/schemes.hpp"

namespace {

using gptq::matrix;
using w4 = gptq::scheme<4, gptq::group_size<16>>;

bool all_finite(const gptq::tensor2<float>& W) {
    for (const float x : W)
        if (!std::isfinite(x)) return false;
    return true;
}

bool rows_equal(const gptq::quantized_layer& a, const gptq::quantized_layer& b) {
    return a.codes == b.codes && a.scales == b.scales && a.zeros == b.zeros && a.g_idx == b.g_idx;
}

/// Counts blocks; stops the solver after `limit` of them.
struct counting_observer {
    std::size_t limit = 1000;
    std::vector<std::size_t> seen;
    void on_columns(std::size_t done, std::size_t) {
        seen.push_back(done);
        if (seen.size() >= limit) throw gptq::cancelled("stopped by the test");
    }
};

}  // namespace

TEST_CASE("dead inputs: their weights are rounded to nearest, and nothing else sees them but the grid of their group") {
    auto layer = gptq_test::make_layer(6, 32, 80, 1);
    for (const std::size_t dead : {std::size_t{3}, std::size_t{20}})
        for (std::size_t t = 0; t < 80; ++t) layer.X(t, dead) = 0.0f;
    gptq::hessian<float> h(32);
    h.add(layer.X.view());
    const auto check = [&]<class Order>() {
        using S = gptq::scheme<4, gptq::group_size<16>, gptq::symmetric, Order>;
        const auto q = gptq::quantize<S>(layer.W.view(), h);
        const auto Wq = gptq::dequantize(q);
        CHECK(q.report.dead_inputs == 2);
        for (std::size_t n = 0; n < 6; ++n)
            for (const std::size_t k : {3u, 20u}) {
                const auto g = static_cast<std::size_t>(q.g_idx(k));
                const auto code = gptq::symmetric::encode<4>(layer.W(n, k), {q.scales(n, g), q.zeros(n, g)});
                CHECK(q.codes(n, k) == code);
                CHECK(std::fabs(Wq(n, k) - layer.W(n, k)) <= 0.51f * q.scales(n, g));
            }
        CHECK(gptq::layer_error(layer.W.view(), q, h) <
              gptq::layer_error(layer.W.view(), gptq::round_to_nearest<w4>(layer.W.view()), h));
        // the loss is that of the damped Hessian, dead inputs or not
        const double damp = q.report.damp_percent * (gptq_test::mean_diagonal(h) + 2.0 / 32.0);
        CHECK(q.report.loss == Approx(gptq_test::damped_error(layer.W.view(), Wq, h, damp)).epsilon(1e-3));
    };
    check.operator()<gptq::natural_order>();
    check.operator()<gptq::act_order>();
    check.operator()<gptq::act_order_static>();
    check.operator()<gptq::group_aware_order>();
}

TEST_CASE("a layer that no token reached is rounded to nearest and says so") {
    const auto layer = gptq_test::make_layer(6, 32, 80, 1);
    gptq::hessian<float> h(32);
    h.add(gptq::matrix<float>(50, 32).view());
    using act = gptq::scheme<4, gptq::group_size<16>, gptq::searched_by_loss<gptq::symmetric>, gptq::act_order>;
    const auto q = gptq::quantize<act>(layer.W.view(), h, {.choose_damping = true, .candidates = 4});
    CHECK(q.report.rounded_to_nearest);
    CHECK(q.report.dead_inputs == 32);
    CHECK(q.report.failed_factorizations == 0);
    CHECK(rows_equal(q, gptq::round_to_nearest<act>(layer.W.view())));
}

TEST_CASE("weights whose errors overflow are rounded to nearest, and the loss is a number") {
    auto layer = gptq_test::make_layer(6, 32, 80, 1);
    for (std::size_t k = 0; k < 32; ++k) layer.W(2, k) = k % 2 == 0 ? 3e38f : -3e38f;
    gptq::hessian<float> h(32);
    h.add(layer.X.view());
    for (const int rounds : {0, 1}) {
        const auto q = gptq::quantize<w4>(layer.W.view(), h, {.refine = {.rounds = rounds}});
        CHECK(std::isfinite(q.report.loss));
        CHECK(q.report.rounded_to_nearest);
        CHECK(rows_equal(q, gptq::round_to_nearest<w4>(layer.W.view())));
    }
}

TEST_CASE("a singular Hessian: damping grows step by step and is reported") {
    const auto layer = gptq_test::make_layer(4, 64, 8, 2);
    gptq::hessian<float> h(64);
    for (int i = 0; i < 8; ++i) h.add(layer.X.view());  // 64 tokens for 64 features, of which 8 are different
    const auto plain = gptq::quantize<w4>(layer.W.view(), h, {.damp_percent = 0.0});
    CHECK(plain.report.failed_factorizations > 0);
    CHECK(plain.report.damp_percent > 0.0);
    CHECK_FALSE(plain.report.rounded_to_nearest);
    CHECK(all_finite(gptq::dequantize(plain)));
    // the paper's inverse needs at least as much damping as the path without one
    const auto paper =
        gptq::quantize<w4>(layer.W.view(), h, {.damp_percent = 0.0}, gptq::cpu_backend{}, gptq::paper_path{});
    CHECK(paper.report.damp_percent >= plain.report.damp_percent);
    CHECK(gptq::layer_error(layer.W.view(), plain, h) <
          gptq::layer_error(layer.W.view(), gptq::round_to_nearest<w4>(layer.W.view()), h));
}

namespace {
/// A backend that finds no matrix positive definite.
struct hopeless_backend : gptq::reference_backend {
    bool factor_upper(gptq::matrix_view<float>) const { return false; }
};
}  // namespace

TEST_CASE("where no damping helps the layer is rounded to nearest and says so") {
    const auto layer = gptq_test::make_layer(4, 32, 60, 3);
    gptq::hessian<float> h(32);
    h.add(layer.X.view());
    using act = gptq::scheme<4, gptq::group_size<16>, gptq::symmetric, gptq::act_order>;
    const auto q = gptq::quantize<act>(layer.W.view(), h, {}, hopeless_backend{});
    CHECK(q.report.rounded_to_nearest);
    CHECK(q.report.failed_factorizations > 2);
    CHECK(rows_equal(q, gptq::round_to_nearest<act>(layer.W.view())));
}

TEST_CASE("layers that share an input share its factorization") {
    const auto layer = gptq_test::make_layer(8, 48, 90, 4);
    gptq::hessian<float> h(48);
    h.add(layer.X.view());
    const auto f = gptq::factorize<w4>(h);
    const auto whole = gptq::quantize<w4>(layer.W.view(), h);
    const auto upper = gptq::quantize<w4>(layer.W.view().block(0, 3, 0, 48), f);
    const auto lower = gptq::quantize<w4>(layer.W.view().block(3, 5, 0, 48), f);
    for (std::size_t n = 0; n < 8; ++n)
        for (std::size_t k = 0; k < 48; ++k)
            REQUIRE(whole.codes(n, k) == (n < 3 ? upper.codes(n, k) : lower.codes(n - 3, k)));
    CHECK(upper.report.loss + lower.report.loss == Approx(whole.report.loss).epsilon(1e-6));
}

TEST_CASE("the Hessian may come from another backend than the solver's") {
    const auto layer = gptq_test::make_layer(4, 32, 60, 5);
    gptq::basic_hessian<gptq::reference_backend> h(32);
    h.add(layer.X.view());
    const auto a = gptq::quantize<w4>(layer.W.view(), h, {}, gptq::reference_backend{});
    const auto b = gptq::quantize<w4>(layer.W.view(), h, {}, gptq::cpu_backend{});
    CHECK(a.report.loss == Approx(b.report.loss).epsilon(1e-2));
}

TEST_CASE("an observer sees every block and may stop the solver") {
    const auto layer = gptq_test::make_layer(4, 40, 60, 6);
    gptq::hessian<float> h(40);
    h.add(layer.X.view());
    counting_observer observer;
    gptq::quantize<w4>(layer.W.view(), h, {.block_size = 16}, gptq::cpu_backend{}, gptq::inverse_free_path{}, observer);
    CHECK(observer.seen == std::vector<std::size_t>{16, 32, 40});
    counting_observer impatient{.limit = 1, .seen = {}};
    CHECK_THROWS_AS(gptq::quantize<w4>(layer.W.view(), h, {.block_size = 16}, gptq::cpu_backend{},
                                       gptq::inverse_free_path{}, impatient),
                    gptq::cancelled);
}

TEST_CASE("what quantize refuses, and what it says") {
    auto layer = gptq_test::make_layer(4, 32, 60, 7);
    gptq::hessian<float> h(32), empty(32), other(16);
    h.add(layer.X.view());
    other.add(layer.X.view().block(0, 60, 0, 16));
    using gptq_test::mentions;
    using gptq_test::message_of;
    CHECK(mentions(message_of([&] { gptq::quantize<w4>(layer.W.view(), empty); }), "no calibration inputs"));
    CHECK(mentions(message_of([&] { gptq::quantize<w4>(layer.W.view(), other); }), "[4, 32]"));
    CHECK_THROWS_AS(gptq::quantize<w4>(layer.W.view(), h, {.damp_percent = -0.1}), gptq::option_error);
    CHECK_THROWS_AS(gptq::quantize<w4>(layer.W.view(), h, {.damp_percent = std::nan("")}), gptq::option_error);
    CHECK_THROWS_AS(gptq::quantize<w4>(layer.W.view(), h, {.block_size = 0}), gptq::option_error);
    CHECK_THROWS_AS(gptq::layer_error(layer.W.view().block(0, 3, 0, 32), gptq::quantize<w4>(layer.W.view(), h), h),
                    gptq::shape_error);
    layer.W(2, 17) = std::numeric_limits<float>::quiet_NaN();
    CHECK(mentions(message_of([&] { gptq::quantize<w4>(layer.W.view(), h); }), "row 2, column 17"));
    CHECK_THROWS_AS(gptq::round_to_nearest<w4>(layer.W.view()), gptq::non_finite_error);
}

TEST_CASE("a configuration chosen at run time is the scheme of the same name") {
    const auto layer = gptq_test::make_layer(4, 64, 80, 8);
    gptq::hessian<float> h(64);
    h.add(layer.X.view());
    using S = gptq::scheme<3, gptq::group_size<32>, gptq::asymmetric, gptq::group_aware_order>;
    const auto expected = gptq::quantize<S>(layer.W.view(), h);
    gptq::quantize_settings settings = gptq::settings::paper(3);
    settings.order = gptq::order_kind::group_aware;
    settings.group_size = 32;
    std::size_t calls = 0;
    gptq::visit_bits(settings.bits, [&]<int Bits>() {
        gptq::visit_grid(settings, gptq::zero_points::from_zero, [&]<class Grid>() {
            gptq::visit_order(settings.order, [&]<class Order>() {
                ++calls;
                using Chosen = gptq::scheme<Bits, gptq::group_size<gptq::dynamic>, Grid, Order>;
                if constexpr (std::is_same_v<Chosen, gptq::scheme<3, gptq::group_size<gptq::dynamic>, gptq::asymmetric,
                                                                  gptq::group_aware_order>>)
                    CHECK(rows_equal(gptq::quantize<Chosen>(layer.W.view(), h, gptq::solver_options(settings)),
                                     expected));
                else
                    FAIL("the wrong scheme was visited");
            });
        });
    });
    CHECK(calls == 1);
    CHECK_THROWS_AS(gptq::visit_bits(9, []<int>() {}), gptq::unsupported_error);
    CHECK_THROWS_AS(gptq::visit_bits(1, []<int>() {}), gptq::unsupported_error);
}
