// Row operations and grids are constexpr: nvcc then takes them for functions of the device as well, without a mark on
// them (--expt-relaxed-constexpr). One block of the solver's loop, at compile time.
#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

#include <gptq/grids/affine.hpp>
#include <gptq/matrix_view.hpp>
#include <gptq/quantize.hpp>

namespace {

/// Its fit needs nothing of <cmath>, which is not constexpr before C++23.
struct unit_grid : gptq::affine_codec {
    static constexpr bool sym = true;
    template <int Bits>
    static constexpr gptq::grid_params fit(std::span<const float>) {
        return {1.0f, 8};
    }
};

/// The codes of the weights 1.25 and 2 in one row, the first one's error being fed back to the second.
constexpr std::array<std::uint8_t, 2> quantize_two() {
    std::array<float, 2> weights{1.25f, 2.0f}, errors = weights;
    const std::array<float, 4> factor{0.5f, 2.0f, 0.0f, 1.0f};
    const std::array<float, 2> costs{1.0f, 1.0f};
    const std::array<std::size_t, 2> group_at{0, 0};
    std::array<float, 1> scale{};
    std::array<std::uint8_t, 1> zero{};
    std::array<std::uint8_t, 2> codes{};
    std::array<double, 1> loss{};
    const gptq::column_block block{.T = {errors.data(), 1, 2},
                                   .W = {weights.data(), 1, 2},
                                   .U = {factor.data(), 2, 2},
                                   .costs = {costs.data(), 1, 2},
                                   .loss = {loss.data(), 1, 1},
                                   .first = 0};
    const gptq::group_parameters groups{{scale.data(), 1, 1}, {zero.data(), 1, 1}};
    const gptq::block_to_quantize<4, unit_grid> work{block, groups, {codes.data(), 1, 2}, {group_at.data(), 1, 2}, true,
                                                     1,     {}};
    gptq::quantize_row<4, unit_grid>{work}(0);
    return codes;
}
static_assert(quantize_two() == std::array<std::uint8_t, 2>{9, 9}, "1.25 is 1 and 0.25 too much; 2 - 0.5 * 2 is 1");

static_assert(gptq::symmetric::encode<4>(0.3f, {0.125f, 8}) == 10 && gptq::symmetric::storable(1e9f) == 65504.0f);
static_assert(gptq::asymmetric::from_range<4>(0.0f, 0.0f).scale == 1.0f);

}  // namespace
