// NVFP4: the numbers of FP4 with those of FP8 for scales.
#pragma once

#include <algorithm>
#include <cstdint>

#include <gptq/grids/codebook.hpp>
#include <gptq/grids/fp4.hpp>
#include <gptq/grids/fp8_e4m3.hpp>

namespace gptq {

/// For grids whose scales are numbers of E4M3 times one number of the tensor. Here it is the same for every tensor,
/// which costs nothing, because the numbers of E4M3 are as dense at one power of two as at another: groups whose
/// largest weight is between 0.0007 and 21 have scales of full precision. Layers that runtimes fuse have the number in
/// common so.
struct fp8_scale {
    static constexpr float unit = 0x1p-7f;

    /// The nearest number of E4M3 times the unit, other than 0, with its sign.
    static constexpr float storable(float scale) {
        const std::uint32_t bits = fp8_e4m3_magnitudes::encode((scale < 0.0f ? -scale : scale) / unit);
        const float magnitude = fp8_e4m3_magnitudes::decode(std::max(bits, std::uint32_t{1})) * unit;
        return scale < 0.0f ? -magnitude : magnitude;
    }
};

/// NVFP4, which files hold in groups of 16: a level of FP4 times a scale of FP8 times a number of the tensor.
struct nvfp4 : codebook<fp4_table, fp8_scale> {};

}  // namespace gptq
