// The layer of 2 x 4 that docs/algorithm.md works out by hand, with the numbers that stand there.
#include <array>
#include <cstddef>
#include <cstdint>

#include <gptq/gptq.hpp>

#include "support/catch.hpp"

namespace {

// Each number has a finite binary form or is rounded once; ties do not occur.
const std::array<float, 8> weights{0.6f,  0.6f, 2.0f, -1.0f,  //
                                   -1.0f, 0.4f, 0.7f, 2.0f};
const std::array<float, 16> inputs{1.5f, 1.0f,  0.0f, 0.0f,  //
                                   0.5f, -1.0f, 0.0f, 0.0f,  //
                                   0.0f, 0.5f,  1.5f, 1.0f,  //
                                   0.0f, 0.5f,  0.5f, -1.0f};
const gptq::matrix_view<const float> W{weights.data(), 2, 4}, X{inputs.data(), 4, 4};

using w2 = gptq::scheme<2, gptq::group_size<gptq::per_channel>, gptq::asymmetric>;

template <class Path>
void check_codes(std::size_t block_size, const Path& path) {
    gptq::hessian<float> h(4);
    h.add(X);
    const auto q = gptq::quantize<w2>(W, h, {.damp_percent = 0.0, .block_size = block_size}, gptq::cpu_backend{}, path);
    const std::array<std::uint8_t, 8> expected{2, 1, 3, 0, 0, 1, 2, 3};
    for (std::size_t i = 0; i < expected.size(); ++i) CHECK(q.codes(i / 4, i % 4) == expected[i]);
    for (std::size_t n = 0; n < 2; ++n) {
        CHECK(q.scales(n, 0) == 1.0f);
        CHECK(q.zeros(n, 0) == 1);
    }
    CHECK(q.report.loss == Approx(0.41 + 0.1925));
    CHECK(gptq::layer_error(W, q, h) == Approx(0.41 + 0.1925));
}

}  // namespace

TEST_CASE("the Hessian of the example has the factor of the page") {
    gptq::hessian<float> h(4);
    h.add(X);
    const float expected[4][4] = {{1.25f, 0.5f, 0, 0}, {0, 1.25f, 0.5f, 0}, {0, 0, 1.25f, 0.5f}, {0, 0, 0, 1}};
    for (std::size_t i = 0; i < 4; ++i)
        for (std::size_t j = i; j < 4; ++j) CHECK(h.upper()(i, j) == expected[i][j]);
}

TEST_CASE("the example has the codes and the loss of the page, by both paths and in blocks of two columns") {
    check_codes(128, gptq::inverse_free_path{});
    check_codes(2, gptq::inverse_free_path{});
    check_codes(128, gptq::paper_path{});
    check_codes(2, gptq::paper_path{});
}

TEST_CASE("rounding the example to nearest has the error of the page") {
    gptq::hessian<float> h(4);
    h.add(X);
    CHECK(gptq::layer_error(W, gptq::round_to_nearest<w2>(W), h) == Approx(0.56 + 0.1925));
}
