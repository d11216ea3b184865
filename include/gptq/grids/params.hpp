// The parameters that the weights of one group share, as the file formats hold them.
#pragma once

#include <cstdint>

namespace gptq {

/// What a group of weights shares. `scale` is a number other than 0 that a half can hold; `zero` is the code of the
/// value 0. A negative scale turns the grid round: higher codes stand for lower values.
struct grid_params {
    float scale = 1.0f;
    std::uint8_t zero = 0;
    friend bool operator==(const grid_params&, const grid_params&) = default;
};

}  // namespace gptq
