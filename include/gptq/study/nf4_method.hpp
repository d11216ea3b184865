// Rounding to nearest on NF4, the levels of a normal distribution.
#pragma once

#include <string_view>

#include <gptq/grids/nf4.hpp>
#include <gptq/settings.hpp>
#include <gptq/study/codebook_method.hpp>

namespace gptq::study {

struct nf4_method : codebook_method<nf4> {
    static constexpr std::string_view name = "nf4";
    static quantize_settings settings_of(const quantize_settings& wanted) { return of_four_bits(name, wanted); }
};

}  // namespace gptq::study
