// FP8: numbers of a sign, four bits of exponent and three of mantissa.
#pragma once

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>

#include <gptq/grids/codebook.hpp>
#include <gptq/grids/params.hpp>

namespace gptq {

/// The numbers of E4M3 (OCP 8-bit Floating Point Specification 1.0, section 5.2) that are not negative: 0 to 448, the
/// bits of each being its place.
struct fp8_e4m3_magnitudes {
    static constexpr std::uint32_t largest_bits = 126;
    static constexpr float largest = 448.0f;

    static constexpr float decode(std::uint32_t bits) {
        return bits < 8 ? static_cast<float>(bits) * 0x1p-9f : std::bit_cast<float>((bits + exponents) << 20);
    }
    /// The bits of the number nearest to `magnitude`, ties to even; those of the largest one for all above it.
    static constexpr std::uint32_t encode(float magnitude) {
        constexpr float most = largest;  // a variable of its own, which CUDA's compiler has an address for
        const float x = magnitude < most ? magnitude : most;
        const auto bits = std::bit_cast<std::uint32_t>(x);
        const std::uint32_t normal = ((bits + 0x7ffffu + (bits >> 20 & 1u)) >> 20) - exponents;
        // The sum's mantissa counts steps of 2^-9, rounded by the addition.
        const std::uint32_t subnormal =
            std::bit_cast<std::uint32_t>(x + 0x1p14f) - std::bit_cast<std::uint32_t>(0x1p14f);
        return x < 0x1p-6f ? subnormal : normal;
    }

 private:
    static constexpr std::uint32_t exponents = (127 - 7) << 3;  // what the biases of both formats differ by
};

/// The numbers of E4M3 in rising order; three more of the largest fill the places of -0 and of two NaN.
struct fp8_e4m3_table {
    static constexpr std::array<float, 256> values = [] {
        std::array<float, 256> levels{};
        for (std::uint32_t c = 0; c < 256; ++c) {
            constexpr std::uint32_t middle = fp8_e4m3_magnitudes::largest_bits;
            const std::uint32_t magnitude = c < middle ? middle - c : c - middle;
            const float level = fp8_e4m3_magnitudes::decode(magnitude < middle ? magnitude : middle);
            levels[c] = c < middle ? -level : level;
        }
        return levels;
    }();
};

/// The values of E4M3 with a half for a scale, which puts the largest weight of a group on 448. Codes are in the order
/// of the values, so that the next code is the next value. It rounds by arithmetic, where codebook would search a
/// table.
struct fp8_e4m3 : codebook<fp8_e4m3_table> {
    template <int Bits>
    requires(Bits == 8) static constexpr std::uint8_t encode(float x, grid_params p) {
        const float level = x / p.scale;
        const std::uint32_t bits = fp8_e4m3_magnitudes::encode(level < 0.0f ? -level : level);
        return static_cast<std::uint8_t>(level < 0.0f ? middle - bits : middle + bits);
    }
    template <int Bits>
    requires(Bits == 8) static constexpr float decode(std::uint8_t code, grid_params p) {
        const std::uint32_t bits = code < middle ? middle - code : code - middle;
        const float magnitude = fp8_e4m3_magnitudes::decode(bits < middle ? bits : middle);
        return p.scale * ((code < middle ? -magnitude : magnitude) - static_cast<float>(p.zero));
    }
    template <int Bits>
    requires(Bits == 8) static constexpr float nearest(float x, grid_params p) {
        return decode<Bits>(encode<Bits>(x, p), p);
    }

 private:
    static constexpr std::uint32_t middle = fp8_e4m3_magnitudes::largest_bits;
};

}  // namespace gptq
