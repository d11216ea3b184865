// A codebook of one's own: sixteen levels, closest together where weights are many.
#include <array>
#include <cmath>
#include <iostream>

#include <gptq/gptq.hpp>
#include <gptq/testing/conformance.hpp>

#include "check.hpp"
#include "random_layer.hpp"

/// The levels rise; a group's scale is fitted so that its largest weight takes the outermost one.
struct cubic_table {
    static constexpr std::array<float, 16> values = [] {
        std::array<float, 16> levels{};
        for (int c = 0; c < 16; ++c) {
            const float x = static_cast<float>(c - 7) / 8.0f;
            levels[static_cast<std::size_t>(c)] = 0.6f * x + 0.4f * x * x * x;
        }
        return levels;
    }();
};
struct cubic : gptq::codebook<cubic_table> {};

static_assert(gptq::LevelGrid<cubic, 4>);

int main() {
    check_conforms(gptq::testing::check_grid<4, cubic>());

    const auto W = random_matrix(64, 256, 1), X = random_inputs(1024, 256, 2);
    gptq::hessian<float> h(256);
    h.add(X);
    // The range of each group searched in the metric of the solver: that works for every codebook.
    using codes = gptq::scheme<4, gptq::group_size<64>, gptq::searched_by_loss<cubic>>;
    const auto q = gptq::quantize<codes>(W, h);
    const double error = gptq::layer_error(W, q, h);
    const double baseline = gptq::layer_error(W, gptq::round_to_nearest<codes>(W), h);
    std::cout << "error of the outputs: " << error << ", round-to-nearest: " << baseline << '\n';
    check(error < baseline, "GPTQ beats rounding on this grid, too");

    // The layer knows its levels once the scheme is forgotten, and products look them up.
    const gptq::quantized_layer layer = q;
    check(gptq::layer_error(W, layer, h) == error, "a layer without its scheme has the same weights");
    const auto Y = gptq::matmul(X, gptq::prepare<gptq::activation::exact>(layer));
    const auto Wq = gptq::dequantize(layer);
    for (std::size_t n = 0; n < 64; ++n) {
        double sum = 0.0;
        for (std::size_t k = 0; k < 256; ++k) sum += double{X(0, k)} * double{Wq(n, k)};
        check(std::fabs(double{Y(0, n)} - sum) < 1e-3, "products are those of the levels");
    }

    // No file of GPTQ's or compressed-tensors' holds such levels, and they say so.
    bool refused = false;
    try {
        (void)gptq::pack<gptq::layout::gptq_v2>(layer);
    } catch (const gptq::unsupported_error&) {
        refused = true;
    }
    check(refused, "files for affine layers refuse it");
}
