// What the solver sets up and takes down around its loop: working copies, result buffers, grids fitted ahead of the
// loop.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <numeric>
#include <span>
#include <utility>
#include <vector>

#include <gptq/concepts.hpp>
#include <gptq/factor.hpp>
#include <gptq/layer_error.hpp>
#include <gptq/matrix_view.hpp>
#include <gptq/quantized.hpp>
#include <gptq/round_to_nearest.hpp>

namespace gptq::detail {

/// A vector as a matrix of one row.                                                                            [1, n]
template <class T>
matrix_view<const T> row_of(const std::vector<T>& v) {
    return {v.data(), 1, v.size()};
}

/// Row r of the layer as the solver starts with it: columns in their order, those of dead inputs 0.
struct gather_row {
    matrix_view<const float> W;            // [N, K], original order
    matrix_view<float> to;                 // [N, K]
    matrix_view<const std::size_t> order;  // [1, K]
    matrix_view<const std::uint8_t> dead;  // [1, K]
    constexpr void operator()(std::size_t r) const noexcept {
        for (std::size_t p = 0; p < to.cols; ++p) to(r, p) = dead(0, p) ? 0.0f : W(r, order(0, p));
    }
};

/// How many elements at the front of v equal the first one.
constexpr std::size_t leading_equal(std::span<const std::size_t> v) {
    std::size_t n = 1;
    while (n < v.size() && v[n] == v[0]) ++n;
    return n;
}

/// Blocks whose errors are fed back to the rest of the layer by one product.
inline constexpr std::size_t blocks_per_stretch = 4;

/// How the columns are cut into blocks and stretches of blocks.
struct column_cuts {
    std::size_t K, block, group;
    bool anywhere;  // grids are fitted before the loop

    /// Where `count` columns from `first` on end: never inside a group that starts in a block, nor beyond a larger group.
    std::size_t end(std::size_t first, std::size_t count) const {
        if (anywhere) return std::min(first + count, K);
        if (group <= block) return std::min(first + count / group * group, K);
        return std::min({first + count, (first / group + 1) * group, K});
    }
};

/// Static groups: grids of the original groups from the weights before the loop, dead inputs counting as 0.
template <int Bits, class Grid, Backend B, class P>
void fit_static_groups(const factored_hessian<B, P>& f, matrix_view<const float> W, group_parameters groups,
                       const Grid& grid) {
    const std::size_t K = f.in_features();
    std::vector<std::size_t> original(K);
    std::iota(original.begin(), original.end(), std::size_t{0});
    std::vector<std::uint8_t> dead(K);
    for (std::size_t p = 0; p < K; ++p) dead[f.order[p]] = f.dead[p];
    auto live = f.backend.template make_matrix<float>(W.rows, K);  // [N, K]
    const auto lent_order = f.backend.lend(row_of(original));
    const auto lent_dead = f.backend.lend(row_of(dead));
    f.backend.for_each_row(W.rows, gather_row{W, live.view(), lent_order.view(), lent_dead.view()});
    matrix<float> by_position(1, K), costs(1, K);  // a column's cost, by position and by column
    f.backend.download(f.costs.view(), by_position.view());
    for (std::size_t p = 0; p < K; ++p) costs(0, f.order[p]) = by_position(0, p);
    const auto lent_costs = f.backend.lend(std::as_const(costs).view());
    f.backend.for_each_row(W.rows,
                           fit_row<Bits, Grid>{live.view(), lent_costs.view(), groups, 0, f.group_features, grid});
}

/// The grid of a group that spans several blocks, from its up-to-date weights when the loop reaches its first column.
template <int Bits, class Grid, Backend B, class P>
void fit_wide_group(const factored_hessian<B, P>& f, matrix_view<const float> W, std::size_t first,
                    group_parameters groups, const Grid& grid) {
    const std::size_t width = std::min(f.group_features, W.cols - first);
    auto weights = f.backend.template make_matrix<float>(W.rows, width);  // [N, width]
    f.path.enter(f.backend, f.factor.view(), W, first, weights.view());
    f.path.current(f.backend, f.factor.view(), W, first, weights.view(), first, first + width);
    const matrix_view<const float> costs = f.costs.view(), current = weights.view();
    f.backend.for_each_row(W.rows, fit_row<Bits, Grid>{current, costs.columns(first, first + width), groups,
                                                       f.group_at[first], width, grid});
}

/// What the factorization has to report about a layer that is to be solved with these options, which are checked.
template <Backend B, class P>
solve_report begin_report(const factored_hessian<B, P>& f, const quantize_options& options) {
    check_options(options);
    return {.damp_percent = f.damp_percent,
            .failed_factorizations = f.failed_factorizations,
            .rounded_to_nearest = !f.positive_definite,
            .dead_inputs = static_cast<std::size_t>(std::accumulate(f.dead.begin(), f.dead.end(), std::size_t{0}))};
}

/// run(weights, held layer), both in the backend's memory, for weights W [N, K] in host memory and a result that goes to
/// `out`. Throws shape_error where shapes do not fit, non_finite_error for weights that are NaN or infinite.
template <Backend B, class P, class Run>
auto through_host(const factored_hessian<B, P>& f, matrix_view<const float> W, quantized_view out, const Run& run) {
    check_layer(W, f.in_features(), f.group_features, out);
    const auto weights = f.backend.lend(W);
    held_layer<B> held(f.backend, W.rows, W.cols, out.scales.cols);
    const auto result = run(matrix_view<const float>(weights.view()), held);
    held.download(out);
    return result;
}

}  // namespace gptq::detail
