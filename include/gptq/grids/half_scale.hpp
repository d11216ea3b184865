// The scales that files hold: halves.
#pragma once

#include <algorithm>

#include <gptq/half.hpp>

namespace gptq {

/// For grids whose scales are stored as halves.
struct half_scale {
    /// `scale` as a half can hold it: never 0, and never infinite, whatever the weights were; its sign stays.
    static constexpr float storable(float scale) {
        constexpr float smallest = 0x1p-24f;
        constexpr float largest = 65504.0f;
        const float sign = scale < 0.0f ? -1.0f : 1.0f;
        return sign * round_to_half(std::clamp(sign * scale, smallest, largest));
    }
};

}  // namespace gptq
