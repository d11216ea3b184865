// Rounding to nearest on FP4, the values of E2M1.
#pragma once

#include <string_view>

#include <gptq/grids/fp4.hpp>
#include <gptq/settings.hpp>
#include <gptq/study/codebook_method.hpp>

namespace gptq::study {

struct fp4_method : codebook_method<fp4> {
    static constexpr std::string_view name = "fp4";
    static quantize_settings settings_of(const quantize_settings& wanted) { return of_four_bits(name, wanted); }
};

}  // namespace gptq::study
