// Round-to-nearest: the baseline that everything is compared with, and the last resort where no factorization succeeds.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include <gptq/concepts.hpp>
#include <gptq/error.hpp>
#include <gptq/finite.hpp>
#include <gptq/groups.hpp>
#include <gptq/held_layer.hpp>
#include <gptq/matrix_view.hpp>
#include <gptq/quantized.hpp>

namespace gptq {

namespace detail {

/// The grid of weights w; by what each costs, if that is known and the grid asks for it.
template <int Bits, class Grid>
constexpr grid_params fit_group(const Grid& grid, std::span<const float> w,
                                [[maybe_unused]] std::span<const float> costs) {
    if constexpr (CostAwareGrid<Grid, Bits>)
        if (!costs.empty()) return grid.template fit<Bits>(w, costs);
    return grid.template fit<Bits>(w);
}

/// Fits the grids of row r: one for every `group_features` columns of W, numbered from `first_group`.
template <int Bits, class Grid>
struct fit_row {
    matrix_view<const float> W;      // [N, columns]
    matrix_view<const float> costs;  // [1, columns], or empty: all weights count alike
    group_parameters groups;         // [N, G]
    std::size_t first_group;
    std::size_t group_features;
    Grid grid;
    constexpr void operator()(std::size_t r) const noexcept {
        for (std::size_t k = 0, g = first_group; k < W.cols; k += group_features, ++g) {
            const std::size_t width = std::min(group_features, W.cols - k);
            const auto group_costs = costs.rows == 0 ? std::span<const float>() : costs.row(0).subspan(k, width);
            groups.set(r, g, fit_group<Bits>(grid, W.row(r).subspan(k, width), group_costs));
        }
    }
};

/// Rounds row r to its grids; groups are runs of `group_features` columns.
template <int Bits, class Grid>
struct round_row {
    matrix_view<const float> W;       // [N, K]
    group_parameters groups;          // [N, G]
    matrix_view<std::uint8_t> codes;  // [N, K]
    std::size_t group_features;
    Grid grid;
    constexpr void operator()(std::size_t r) const noexcept {
        for (std::size_t k = 0; k < W.cols; ++k)
            codes(r, k) = grid.template encode<Bits>(W(r, k), groups.get(r, k / group_features));
    }
};

/// Throws unless W is a finite [N, in_features] and `out` has room for its result.
inline void check_layer(matrix_view<const float> W, std::size_t in_features, std::size_t group_features,
                        quantized_view out) {
    if (W.cols != in_features)
        throw shape_error("weights are [out_features, in_features] = " + shape_string(W.rows, W.cols) +
                          ", but the inputs they are quantized for have " + std::to_string(in_features) + " features");
    if (W.rows == 0 || W.cols == 0)
        throw shape_error("weights: the layer " + shape_string(W.rows, W.cols) + " is empty");
    const std::size_t groups = group_count(in_features, group_features);
    const bool fits = out.codes.rows == W.rows && out.codes.cols == W.cols && out.scales.rows == W.rows &&
                      out.scales.cols == groups && out.zeros.rows == W.rows && out.zeros.cols == groups &&
                      out.g_idx.size() == W.cols;
    if (!fits)
        throw shape_error("quantize: the result has no room for a layer " + shape_string(W.rows, W.cols) + " in " +
                          std::to_string(groups) + " groups");
    require_finite(W, "weights");
}

}  // namespace detail

/// Rounds every weight of W [N, K], in the backend's memory, to the nearest value of its group's grid; groups are runs of
/// `group_features` input features.
template <int Bits, class Grid, Backend B>
requires QuantGrid<Grid, Bits>
void round_to_nearest_into(in_backend_t, const B& backend, matrix_view<const float> W, std::size_t group_features,
                           held_layer<B>& out, const Grid& grid = {}) {
    backend.for_each_row(W.rows, detail::fit_row<Bits, Grid>{W, {}, out.groups(), 0, group_features, grid});
    backend.for_each_row(W.rows, detail::round_row<Bits, Grid>{W, out.groups(), out.codes(), group_features, grid});
    out.template made_by<Bits>(grid);
    for (std::size_t k = 0; k < W.cols; ++k) out.g_idx()[k] = static_cast<std::int32_t>(k / group_features);
}

/// The same for W in host memory. Throws shape_error where shapes do not fit, non_finite_error for NaN and infinity.
template <int Bits, class Grid, Backend B>
requires QuantGrid<Grid, Bits>
void round_to_nearest_into(const B& backend, matrix_view<const float> W, std::size_t group_features, quantized_view out,
                           const Grid& grid = {}) {
    detail::check_layer(W, W.cols, group_features, out);
    const auto weights = backend.lend(W);
    held_layer<B> result(backend, W.rows, W.cols, out.scales.cols);
    round_to_nearest_into<Bits>(in_backend, backend, weights.view(), group_features, result, grid);
    result.download(out);
}

}  // namespace gptq
