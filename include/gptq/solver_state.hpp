// What the solver sets up and takes down around its loop: working copies, result buffers, grids fitted ahead of the
// loop.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include <gptq/concepts.hpp>
#include <gptq/factor.hpp>
#include <gptq/fit_groups.hpp>
#include <gptq/held_layer.hpp>
#include <gptq/layer_error.hpp>
#include <gptq/matrix_view.hpp>
#include <gptq/options.hpp>
#include <gptq/quantized.hpp>
#include <gptq/round_to_nearest.hpp>

namespace gptq::detail {

/// A vector as a matrix of one row.                                                                            [1, n]
template <class T>
matrix_view<const T> row_of(const std::vector<T>& v) {
    return {v.data(), 1, v.size()};
}

/// Row r of the layer as the solver starts with it: columns in their order.
struct gather_row {
    matrix_view<const float> W;            // [N, K], original order
    matrix_view<float> to;                 // [N, K]
    matrix_view<const std::size_t> order;  // [1, K]
    constexpr void operator()(std::size_t r) const noexcept {
        for (std::size_t p = 0; p < to.cols; ++p) to(r, p) = W(r, order(0, p));
    }
};

/// W [N, K] in the backend's memory, its columns in f's order.
template <Backend B, class P>
backend_matrix<B, float> ordered_copy(const factored_hessian<B, P>& f, matrix_view<const float> W) {
    const auto order = f.backend.lend(row_of(f.order));
    auto copy = f.backend.template make_matrix<float>(W.rows, W.cols);
    f.backend.for_each_row(W.rows, gather_row{W, copy.view(), order.view()});
    return copy;
}

/// Static groups: grids of the original groups from the weights before the loop.
template <int Bits, class Grid, Backend B, class P>
void fit_static_groups(const factored_hessian<B, P>& f, matrix_view<const float> W, group_parameters groups,
                       const Grid& grid) {
    const std::size_t K = f.in_features();
    matrix<float> by_position(1, K), costs(1, K);  // a column's cost, by position and by column
    f.backend.download(f.costs.view(), by_position.view());
    for (std::size_t p = 0; p < K; ++p) costs(0, f.order[p]) = by_position(0, p);
    const auto lent_costs = f.backend.lend(std::as_const(costs).view());
    fit_groups(f.backend, groups_to_fit<Bits, Grid>{W, lent_costs.view(), groups, 0, f.group_features, grid});
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
    fit_groups(f.backend, groups_to_fit<Bits, Grid>{current, costs.columns(first, first + width), groups,
                                                    f.group_at[first], width, grid});
}

/// What the factorization has to report about a layer that is to be solved with these options, which are checked.
template <Backend B, class P>
solve_report begin_report(const factored_hessian<B, P>& f, const quantize_options& options) {
    check_options(options);
    return {.damp_percent = f.damp_percent,
            .failed_factorizations = f.failed_factorizations,
            .rounded_to_nearest = !f.positive_definite,
            .dead_inputs = f.dead_inputs,
            .shrinkage = f.shrinkage};
}

/// Rounds W [N, K] to nearest, for layers that the solver could not quantize, and returns a report that says so.
template <int Bits, class Grid, Backend B, class P>
solve_report round_instead(const factored_hessian<B, P>& f, matrix_view<const float> W, held_layer<B>& result,
                           const Grid& grid, solve_report report) {
    round_to_nearest_into<Bits>(in_backend, f.backend, W, f.group_features, result, grid);
    report.rounded_to_nearest = true;
    report.loss = 0.0;
    return report;
}

/// Checks the result of the loop and brings its columns into their original order; returns the report.
template <Backend B, class P>
solve_report finish_layer(const factored_hessian<B, P>& f, held_layer<B>& result, const solve_report& report) {
    check_scales(f.backend, result.groups());
    result.restore_columns(f.order);
    for (std::size_t p = 0; p < f.in_features(); ++p)
        result.g_idx()[f.order[p]] = static_cast<std::int32_t>(f.group_at[p]);
    return report;
}

/// run(weights, held layer), both in the backend's memory, for weights W [N, K] in host memory and a result that goes
/// to `out`. Throws shape_error where shapes do not fit, non_finite_error for weights that are NaN or infinite.
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
