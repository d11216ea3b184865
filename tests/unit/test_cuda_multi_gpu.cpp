// Sharing a layer out over several backends, with CPU backends in place of GPUs.
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include <gptq/backends/cpu/cpu_backend.hpp>
#include <gptq/backends/cuda/host_executed_backend.hpp>
#include <gptq/backends/cuda/multi_gpu.hpp>
#include <gptq/gptq.hpp>

#include "support/catch.hpp"
#include "support/random_layer.hpp"

using gptq::cuda::row_range;
using gptq::cuda::rows_of_part;
using gptq::cuda::split_hessian;

namespace {

using w4 = gptq::scheme<4, gptq::group_size<16>, gptq::asymmetric, gptq::act_order>;

/// Fails the test if it is called.
struct no_sum {
    template <class B>
    void operator()(std::span<const B>, std::span<const gptq::matrix_view<float>>) const {
        FAIL("one backend needs no sum");
    }
};

}  // namespace

TEST_CASE("rows are shared out without gaps, in sizes that differ by at most one") {
    CHECK(rows_of_part(10, 0, 3) == row_range{0, 3});
    CHECK(rows_of_part(10, 1, 3) == row_range{3, 3});
    CHECK(rows_of_part(10, 2, 3) == row_range{6, 4});
    CHECK(rows_of_part(1, 0, 2) == row_range{0, 0});
    CHECK(rows_of_part(1, 1, 2) == row_range{0, 1});
    for (std::size_t rows = 0; rows < 40; ++rows)
        for (std::size_t parts = 1; parts < 9; ++parts) {
            std::size_t next = 0;
            for (std::size_t i = 0; i < parts; ++i) {
                const row_range range = rows_of_part(rows, i, parts);
                REQUIRE(range.first == next);
                REQUIRE((range.count == rows / parts || range.count == rows / parts + 1));
                next += range.count;
            }
            REQUIRE(next == rows);
        }
}

TEST_CASE("one backend is what the layer is quantized on", "[openmp]") {
    const auto layer = gptq_test::make_layer(7, 48, 150, 21);
    split_hessian<gptq::cpu_backend> h(48, {gptq::cpu_backend{}});
    h.add(layer.X.view());
    CHECK_THROWS_AS(gptq::cuda::quantize<w4>(layer.W.view(), h), gptq::error);  // not reduced
    h.reduce(no_sum{});
    gptq::hessian<float> whole(48);
    whole.add(layer.X.view());
    const auto expected = gptq::quantize<w4>(layer.W.view(), whole);
    const auto got = gptq::cuda::quantize<w4>(layer.W.view(), h);
    CHECK(got.codes == expected.codes);
    CHECK(got.g_idx == expected.g_idx);
    CHECK(got.report.loss == Approx(expected.report.loss));
}

TEST_CASE("several backends make of a layer what one makes of it", "[openmp]") {
    const auto layer = gptq_test::make_layer(11, 48, 200, 22);
    split_hessian<gptq::cpu_backend> h(48, std::vector<gptq::cpu_backend>(3));
    h.add(layer.X.view().block(0, 2, 0, 48));  // the first backend has none of these
    h.add(layer.X.view().block(2, 198, 0, 48));
    h.reduce();
    CHECK(h.samples() == 200);

    gptq::hessian<float> whole(48);
    whole.add(layer.X.view());
    for (std::size_t i = 0; i < 3; ++i)
        for (std::size_t r = 0; r < 48; ++r)
            for (std::size_t c = r; c < 48; ++c) {
                const float scale = whole.upper()(r, r) + whole.upper()(c, c);
                REQUIRE(h.upper(i)(r, c) == Approx(whole.upper()(r, c)).margin(1e-6 * scale));
            }

    // Sums in another order may turn a tie, and what follows it in its row.
    const auto expected = gptq::quantize<w4>(layer.W.view(), whole);
    for (const int rounds : {0, 1}) {
        const auto got = gptq::cuda::quantize<w4>(layer.W.view(), h, {.refine = {.rounds = rounds}});
        CHECK(got.g_idx == expected.g_idx);
        if (rounds == 0) {
            CHECK(gptq::layer_error(layer.W.view(), got, whole) ==
                  Approx(gptq::layer_error(layer.W.view(), expected, whole)).epsilon(0.01));
            CHECK(got.report.loss == Approx(expected.report.loss).epsilon(0.01));
        } else {
            CHECK(gptq::layer_error(layer.W.view(), got, whole) < gptq::layer_error(layer.W.view(), expected, whole));
        }
    }
}

TEST_CASE("rows do not depend on the backend that has them") {
    // Every backend sees the same tokens, so that the mean of their Hessians is that of one, to the last bit.
    const auto layer = gptq_test::make_layer(9, 32, 100, 23);
    gptq::matrix<float> X(400, 32);
    for (std::size_t t = 0; t < 400; ++t)
        for (std::size_t k = 0; k < 32; ++k) X(t, k) = layer.X(t % 100, k);
    using backend = gptq::cuda::host_executed_backend;
    split_hessian<backend> one(32, std::vector<backend>(1)), four(32, std::vector<backend>(4));
    one.add(layer.X.view());
    four.add(X.view());
    one.reduce();
    four.reduce();
    const auto expected = gptq::cuda::quantize<w4>(layer.W.view(), one);
    const auto got = gptq::cuda::quantize<w4>(layer.W.view(), four);
    CHECK(got.codes == expected.codes);
    CHECK(got.scales == expected.scales);
    CHECK(got.zeros == expected.zeros);
}

TEST_CASE("a failure in one thread is thrown to the caller", "[openmp]") {
    const auto layer = gptq_test::make_layer(4, 16, 40, 24);
    split_hessian<gptq::cpu_backend> h(16, std::vector<gptq::cpu_backend>(2));
    h.add(layer.X.view());
    h.reduce();
    CHECK_THROWS_AS(gptq::cuda::quantize<w4>(layer.W.view(), h, {.damp_percent = 7.0}), gptq::option_error);
    CHECK_THROWS_AS(split_hessian<gptq::cpu_backend>(16, {}), gptq::shape_error);
}
