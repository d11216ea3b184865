// Grids fitted to the weights of their groups.
#pragma once

#include <algorithm>
#include <cstddef>
#include <span>

#include <gptq/concepts.hpp>
#include <gptq/matrix_view.hpp>
#include <gptq/quantized.hpp>

namespace gptq {

/// The grid of weights w; by what each costs, if that is known and the grid asks for it.
template <int Bits, class Grid>
constexpr grid_params fit_group(const Grid& grid, std::span<const float> w,
                                [[maybe_unused]] std::span<const float> costs) {
    if constexpr (CostAwareGrid<Grid, Bits>)
        if (!costs.empty()) return grid.template fit<Bits>(w, costs);
    return grid.template fit<Bits>(w);
}

/// The argument of Backend's optional fit_groups: grids to fit, one for every `group_features` columns of W, numbered
/// from `first_group`. As a row operation it fits the grids of row r.
template <int Bits, class Grid>
struct groups_to_fit {
    matrix_view<const float> W;      ///< [N, columns]
    matrix_view<const float> costs;  ///< [1, columns], or empty: all weights count alike
    group_parameters groups;         ///< [N, G]
    std::size_t first_group;
    std::size_t group_features;
    Grid grid;

    constexpr void operator()(std::size_t r) const {
        for (std::size_t k = 0, g = first_group; k < W.cols; k += group_features, ++g) {
            const std::size_t width = std::min(group_features, W.cols - k);
            const auto group_costs = costs.rows == 0 ? std::span<const float>() : costs.row(0).subspan(k, width);
            groups.set(r, g, fit_group<Bits>(grid, W.row(r).subspan(k, width), group_costs));
        }
    }
};

/// Fits them on the backend: by its own operation where it has one.
template <int Bits, class Grid, Backend B>
void fit_groups(const B& backend, const groups_to_fit<Bits, Grid>& fit) {
    if constexpr (requires { backend.fit_groups(fit); })
        backend.fit_groups(fit);
    else
        backend.for_each_row(fit.W.rows, fit);
}

}  // namespace gptq
