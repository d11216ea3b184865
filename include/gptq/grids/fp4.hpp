// FP4: numbers of a sign, two bits of exponent and one of mantissa.
#pragma once

#include <array>

#include <gptq/grids/codebook.hpp>

namespace gptq {

/// The numbers of E2M1, in rising order; the second 6 fills the place of -0.
struct fp4_table {
    static constexpr std::array<float, 16> values = {-6.0f, -4.0f, -3.0f, -2.0f, -1.5f, -1.0f, -0.5f, 0.0f,
                                                     0.5f,  1.0f,  1.5f,  2.0f,  3.0f,  4.0f,  6.0f,  6.0f};
};

/// The values of E2M1 (OCP Microscaling Formats 1.0, section 5.3.3) with a half for a scale. Codes are in the order of
/// the values, not the bits of E2M1, so that the next code is the next value; code 15 is that of a second 6 in place of
/// the second 0.
struct fp4 : codebook<fp4_table> {};

}  // namespace gptq
