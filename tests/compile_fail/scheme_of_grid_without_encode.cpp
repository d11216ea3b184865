// expect: grid\.template encode<Bits>
#include <cstdint>
#include <gptq/scheme.hpp>
#include <span>

struct my_grid {
    static constexpr bool sym = true;
    template <int Bits>
    gptq::grid_params fit(std::span<const float>) const;
#ifdef CORRECT
    template <int Bits>
    std::uint8_t encode(float, gptq::grid_params) const;
#endif
    template <int Bits>
    float decode(std::uint8_t, gptq::grid_params) const;
};

using my_scheme = gptq::scheme<4, gptq::group_size<32>, my_grid>;
static_assert(my_scheme::bits == 4);
