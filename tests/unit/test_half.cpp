// Half precision and bfloat16 against their definitions, for every bit pattern.
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>

#include <gptq/half.hpp>

#include "support/catch.hpp"

namespace {

/// The value of a half from sign, exponent and mantissa (IEEE 754, binary16).
double value_of(std::uint16_t bits) {
    const double sign = (bits & 0x8000) != 0 ? -1.0 : 1.0;
    const int exponent = (bits >> 10) & 31, mantissa = bits & 1023;
    if (exponent == 0) return sign * std::ldexp(mantissa, -24);
    return sign * std::ldexp(1024 + mantissa, exponent - 25);
}

}  // namespace

TEST_CASE("every finite half widens to its value and comes back") {
    for (std::uint32_t b = 0; b < 0x10000; ++b) {
        const gptq::half h{static_cast<std::uint16_t>(b)};
        const float f = gptq::to_float(h);
        if (((b >> 10) & 31) == 31) {
            REQUIRE(std::isfinite(f) == false);
            REQUIRE(std::isnan(f) == ((b & 1023) != 0));
            continue;
        }
        REQUIRE(double{f} == value_of(h.bits));
        REQUIRE(gptq::to_half(f) == h);
    }
}

TEST_CASE("between two halves the nearest is taken, on a tie the even one") {
    for (std::uint16_t b = 0; b < 0x7bff; ++b) {
        const auto next = static_cast<std::uint16_t>(b + 1);
        const float low = gptq::to_float(gptq::half{b}), high = gptq::to_float(gptq::half{next});
        const float middle = 0.5f * (low + high);
        REQUIRE(gptq::to_half(middle).bits == ((b & 1) == 0 ? b : next));
        REQUIRE(gptq::to_half(std::nextafter(middle, low)).bits == b);
        REQUIRE(gptq::to_half(std::nextafter(middle, high)).bits == next);
        REQUIRE(gptq::to_half(-middle).bits == (((b & 1) == 0 ? b : next) | 0x8000));
    }
    CHECK(gptq::to_half(65519.996f).bits == 0x7bff);
    CHECK(gptq::to_half(65520.0f).bits == 0x7c00);
    CHECK(gptq::to_half(std::numeric_limits<float>::infinity()).bits == 0x7c00);
    CHECK(std::isnan(gptq::to_float(gptq::to_half(std::numeric_limits<float>::quiet_NaN()))));
    CHECK(gptq::to_half(1e-30f).bits == 0);
}

TEST_CASE("bfloat16 is the upper half of a float, rounded to nearest even") {
    CHECK(gptq::to_float(gptq::bfloat16{0x3f80}) == 1.0f);
    CHECK(gptq::to_bfloat16(1.0f).bits == 0x3f80);
    CHECK(gptq::to_bfloat16(std::bit_cast<float>(0x3f808000u)).bits == 0x3f80);
    CHECK(gptq::to_bfloat16(std::bit_cast<float>(0x3f818000u)).bits == 0x3f82);
    CHECK(gptq::to_bfloat16(std::bit_cast<float>(0x3f808001u)).bits == 0x3f81);
    CHECK(std::isnan(gptq::to_float(gptq::to_bfloat16(std::bit_cast<float>(0x7f800001u)))));
    CHECK(std::isinf(gptq::to_float(gptq::to_bfloat16(std::numeric_limits<float>::max()))));
}
