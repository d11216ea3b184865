// MXFP4: the numbers of FP4 with powers of two for scales.
#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>

#include <gptq/grids/codebook.hpp>
#include <gptq/grids/fp4.hpp>

namespace gptq {

/// For grids whose scales are stored as exponents.
struct power_of_two_scale {
    /// The power of two nearest to `scale` that a half can hold, with its sign.
    static constexpr float storable(float scale) {
        const float magnitude = std::clamp(scale < 0.0f ? -scale : scale, 0x1p-24f, 0x1p15f);
        const std::uint32_t nearest = std::bit_cast<std::uint32_t>(magnitude) + 0x400000u;  // from 1.5 up to the next
        const float power = std::bit_cast<float>(nearest & 0x7f800000u);
        return scale < 0.0f ? -power : power;
    }
};

/// MXFP4 (OCP Microscaling Formats 1.0, section 5.3.3), which files hold in groups of 32. The specification takes the
/// exponent of the largest weight; this grid takes the power of two nearest to its sixth, and a search by loss others.
struct mxfp4 : codebook<fp4_table, power_of_two_scale> {};

}  // namespace gptq
