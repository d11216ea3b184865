// The parameters that the weights of one group share, as the file formats hold them.
#pragma once

#include <cstdint>

namespace gptq {

/// What a group of weights shares. `scale` is a positive number that a half can hold; `zero` is the code of the value
/// 0.
struct grid_params {
    float scale = 1.0f;
    std::uint8_t zero = 0;
    friend bool operator==(const grid_params&, const grid_params&) = default;
};

}  // namespace gptq
