// The result of quantization as views, and what can be computed from it without knowing where it lives.
#pragma once

#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <type_traits>
#include <vector>

#include <gptq/concepts.hpp>
#include <gptq/matrix_view.hpp>

namespace gptq {

/// Where a quantized layer of N output and K input features lies in host memory; G groups.
/// weight(n, k) = grid.decode(codes(n, k), {scales(n, g_idx[k]), zeros(n, g_idx[k])}), where the grid is known. Where
/// it is not, weight(n, k) = scales(n, g_idx[k]) * (levels[codes(n, k)] - zeros(n, g_idx[k])).
template <bool Const>
struct basic_quantized_view {
    template <class T>
    using element = std::conditional_t<Const, const T, T>;

    matrix_view<element<std::uint8_t>> codes;  ///< [N, K], one code a byte, original order of the columns
    matrix_view<element<float>> scales;        ///< [N, G], each one a number that a half holds
    matrix_view<element<std::uint8_t>> zeros;  ///< [N, G]
    std::span<element<std::int32_t>> g_idx;    ///< [K], the group of each input feature
    std::span<const float> levels = {};        ///< [2^bits]; empty where they are 0, 1, 2, ..., as in affine layers
};
using quantized_view = basic_quantized_view<false>;
using const_quantized_view = basic_quantized_view<true>;

/// The grids of a layer while they are being fitted: row n, group g.
struct group_parameters {
    matrix_view<float> scales;        ///< [N, G]
    matrix_view<std::uint8_t> zeros;  ///< [N, G]
    constexpr grid_params get(std::size_t n, std::size_t g) const noexcept { return {scales(n, g), zeros(n, g)}; }
    constexpr void set(std::size_t n, std::size_t g, grid_params p) const noexcept {
        scales(n, g) = p.scale;
        zeros(n, g) = p.zero;
    }
};

/// What happened while a layer was quantized.
struct solve_report {
    double damp_percent = 0.0;      ///< the damping that the factorization succeeded with
    int failed_factorizations = 0;  ///< how many smaller dampings were tried before
    bool rounded_to_nearest =
        false;                    ///< whether it was rounded to nearest, or pruned by magnitude, as no factor was found
    std::size_t dead_inputs = 0;  ///< input features that were 0 in every sample; their weights are rounded to nearest
    double shrinkage = 0.0;       ///< the share that H lost beside its diagonal, because tokens were few
    double loss = 0.0;            ///< sum of squared errors fed back = tr(D H_damped D') exactly; 0 if rounded
};

/// What `levels` of a layer have to be for this grid.
template <int Bits, class Grid>
requires LevelGrid<Grid, Bits>
constexpr std::vector<float> levels_of([[maybe_unused]] const Grid& grid = {}) {
    if constexpr (AffineGrid<Grid>) {
        return {};
    } else {
        const auto levels = grid.template levels<Bits>();
        for (std::size_t c = 0; c < levels.size(); ++c)
            if (levels[c] != static_cast<float>(c)) return {levels.begin(), levels.end()};
        return {};
    }
}

/// The level of every code that a byte can be, of any layer. Codes that have none, which no grid returns, get NaN.
constexpr std::array<float, 256> level_table(std::span<const float> levels) {
    std::array<float, 256> table{};
    for (std::size_t c = 0; c < table.size(); ++c) {
        if (levels.empty())
            table[c] = static_cast<float>(c);
        else
            table[c] = c < levels.size() ? levels[c] : std::numeric_limits<float>::quiet_NaN();
    }
    return table;
}

/// out = the float weights that the codes stand for.                                                      out [N, K]
template <class Grid, int Bits>
requires QuantGrid<Grid, Bits>
void dequantize_into(const_quantized_view q, matrix_view<float> out, const Grid& grid = {}) {
    for (std::size_t n = 0; n < out.rows; ++n)
        for (std::size_t k = 0; k < out.cols; ++k) {
            const auto g = static_cast<std::size_t>(q.g_idx[k]);
            out(n, k) = grid.template decode<Bits>(q.codes(n, k), {q.scales(n, g), q.zeros(n, g)});
        }
}

/// The same for a layer whose grid is not known but by its levels.                                         out [N, K]
inline void dequantize_into(const_quantized_view q, matrix_view<float> out) {
    const auto levels = level_table(q.levels);
    for (std::size_t n = 0; n < out.rows; ++n)
        for (std::size_t k = 0; k < out.cols; ++k) {
            const auto g = static_cast<std::size_t>(q.g_idx[k]);
            out(n, k) = q.scales(n, g) * (levels[q.codes(n, k)] - static_cast<float>(q.zeros(n, g)));
        }
}

}  // namespace gptq
