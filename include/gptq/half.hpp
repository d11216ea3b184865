// IEEE half precision and bfloat16 as storage types: exact widening, narrowing with rounding to nearest even.
#pragma once

#include <bit>
#include <cstdint>
#include <type_traits>

namespace gptq {

/// A binary16 number as the files hold it. Arithmetic happens in float.
struct half {
    std::uint16_t bits = 0;
    friend bool operator==(half, half) = default;
};

/// A bfloat16 number: the upper half of a float.
struct bfloat16 {
    std::uint16_t bits = 0;
    friend bool operator==(bfloat16, bfloat16) = default;
};

/// Exact.
constexpr float to_float(half h) {
    const std::uint32_t sign = static_cast<std::uint32_t>(h.bits & 0x8000u) << 16;
    const std::uint32_t exponent = (h.bits >> 10) & 0x1fu;
    const std::uint32_t mantissa = h.bits & 0x3ffu;
    if (exponent == 31) return std::bit_cast<float>(sign | 0x7f800000u | (mantissa << 13));
    if (exponent != 0) return std::bit_cast<float>(sign | ((exponent + 112) << 23) | (mantissa << 13));
    // Zero or subnormal: mantissa * 2^-24, exact in float.
    const float magnitude = static_cast<float>(mantissa) * 0x1p-24f;
    return std::bit_cast<float>(sign | std::bit_cast<std::uint32_t>(magnitude));
}

/// Exact.
constexpr float to_float(float x) { return x; }
constexpr float to_float(bfloat16 b) { return std::bit_cast<float>(static_cast<std::uint32_t>(b.bits) << 16); }

/// Nearest half, ties to even; overflow gives infinity, NaN stays NaN.
constexpr half to_half(float value) {
    const std::uint32_t bits = std::bit_cast<std::uint32_t>(value);
    const auto sign = static_cast<std::uint16_t>((bits >> 16) & 0x8000u);
    const std::uint32_t magnitude = bits & 0x7fffffffu;
    const auto with_sign = [sign](std::uint32_t m) { return half{static_cast<std::uint16_t>(sign | m)}; };
    if (magnitude > 0x7f800000u) return with_sign(0x7e00u);
    if (magnitude >= 0x477ff000u) return with_sign(0x7c00u);  // 65520 and above round to infinity
    if (magnitude < 0x38800000u) {
        // Subnormal: adding 0.5 leaves the rounded multiple of 2^-24 in the low bits of the float's mantissa.
        const float shifted = std::bit_cast<float>(magnitude) + 0.5f;
        return with_sign(std::bit_cast<std::uint32_t>(shifted) - 0x3f000000u);
    }
    const std::uint32_t odd = (magnitude >> 13) & 1u;
    return with_sign((magnitude - 0x38000000u + 0xfffu + odd) >> 13);
}

/// Nearest bfloat16, ties to even; NaN stays NaN.
constexpr bfloat16 to_bfloat16(float value) {
    const std::uint32_t bits = std::bit_cast<std::uint32_t>(value);
    if ((bits & 0x7fffffffu) > 0x7f800000u) return {static_cast<std::uint16_t>((bits >> 16) | 0x40u)};
    return {static_cast<std::uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16)};
}

/// `value` as T: rounded to half or bfloat16, or the float that it is.
template <class T>
constexpr T narrow(float value) {
    if constexpr (std::is_same_v<T, half>)
        return to_half(value);
    else if constexpr (std::is_same_v<T, bfloat16>)
        return to_bfloat16(value);
    else
        return value;
}

/// The float nearest to `value` that a half can hold; scales pass through this before anything is quantized with them.
constexpr float round_to_half(float value) { return to_float(to_half(value)); }

}  // namespace gptq
