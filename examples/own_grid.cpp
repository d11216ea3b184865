// A grid of one's own: scales are powers of two, so that a machine may shift where others multiply.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <iostream>
#include <span>

#include <gptq/gptq.hpp>
#include <gptq/testing/conformance.hpp>

#include "check.hpp"
#include "random_layer.hpp"

//! [grid]
struct power_of_two {
    static constexpr bool sym = true;     // every zero point is the code in the middle
    static constexpr bool affine = true;  // decode is scale * (code - zero): products, files and fast rounding may know
    static constexpr int min_zero = 0;

    /// The smallest power of two that a half holds and with which no weight is clipped.
    template <int Bits>
    static gptq::grid_params fit(std::span<const float> w) {
        float largest = 0.0f;
        for (const float x : w) largest = std::max(largest, std::fabs(x));
        constexpr int middle = 1 << (Bits - 1);
        const int exponent = largest > 0.0f ? static_cast<int>(std::ceil(std::log2(largest / (middle - 1)))) : 0;
        return {std::ldexp(1.0f, std::clamp(exponent, -24, 15)), middle};
    }

    template <int Bits>
    static std::uint8_t encode(float x, gptq::grid_params p) {
        const float code = std::nearbyint(x / p.scale) + static_cast<float>(p.zero);
        return static_cast<std::uint8_t>(std::clamp(code, 0.0f, static_cast<float>((1 << Bits) - 1)));
    }

    template <int Bits>
    static float decode(std::uint8_t code, gptq::grid_params p) {
        return p.scale * static_cast<float>(code - p.zero);
    }
};

static_assert(gptq::QuantGrid<power_of_two, 4>);
//! [grid]

int main() {
    //! [check]
    check_conforms(gptq::testing::check_grid<2, power_of_two>());
    check_conforms(gptq::testing::check_grid<4, power_of_two>());
    check_conforms(gptq::testing::check_grid<8, power_of_two>());
    //! [check]

    //! [use]
    using shifts = gptq::scheme<4, gptq::group_size<64>, power_of_two>;
    const auto W = random_matrix(64, 256, 1), X = random_inputs(1024, 256, 2);
    gptq::hessian<float> h(256);
    h.add(X);
    const auto q = gptq::quantize<shifts>(W, h);
    const double error = gptq::layer_error(W, q, h);
    const double baseline = gptq::layer_error(W, gptq::round_to_nearest<shifts>(W), h);
    //! [use]
    std::cout << "error of the outputs: " << error << ", round-to-nearest: " << baseline << '\n';
    check(error < baseline, "GPTQ beats rounding on this grid, too");
    int exponent = 0;
    for (const float scale : q.scales) check(std::frexp(scale, &exponent) == 0.5f, "every scale is a power of two");
}
