// A grid that does not say what its codes stand for, unless CORRECT is defined.
#pragma once

#include <cstdint>
#include <span>

#include <gptq/gptq.hpp>

struct my_grid {
    static constexpr bool sym = false;
#ifdef CORRECT
    static constexpr bool affine = true;
    static constexpr int min_zero = 0;
#endif
    template <int Bits>
    gptq::grid_params fit(std::span<const float>) const;
    template <int Bits>
    std::uint8_t encode(float, gptq::grid_params) const;
    template <int Bits>
    float decode(std::uint8_t, gptq::grid_params) const;
};

using my_scheme = gptq::scheme<4, gptq::group_size<32>, my_grid>;
