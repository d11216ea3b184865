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
#include <gptq/matrix_view.hpp>
#include <gptq/quantized.hpp>

namespace gptq {

namespace detail {

template <Backend B, class T>
using backend_matrix = decltype(std::declval<const B&>().template make_matrix<T>(0, 0));

/// Row r of codes, each to its column's place: all at once, since in the loop each would go to another line of memory.
struct scatter_codes {
    matrix_view<const std::uint8_t> codes;  // [N, K], columns in `order`
    matrix_view<std::uint8_t> to;           // [N, K]
    matrix_view<const std::size_t> order;   // [1, K]
    constexpr void operator()(std::size_t r) const noexcept {
        // In variables of their own: to compilers, a byte that is stored may be part of any member.
        const std::span<const std::uint8_t> from = codes.row(r);
        const std::span<std::uint8_t> row = to.row(r);
        const std::span<const std::size_t> place = order.row(0);
        for (std::size_t p = 0; p < from.size(); ++p) row[place[p]] = from[p];
    }
};

/// A layer's result in the backend's memory, until it is complete.
template <Backend B>
class layer_buffers {
 public:
    layer_buffers(const B& backend, std::size_t N, std::size_t K, std::size_t G)
        : backend_(backend),
          codes_(backend.template make_matrix<std::uint8_t>(N, K)),
          scales_(backend.template make_matrix<float>(N, G)),
          zeros_(backend.template make_matrix<std::uint8_t>(N, G)) {}

    matrix_view<std::uint8_t> codes() { return codes_.view(); }            // [N, K]
    group_parameters groups() { return {scales_.view(), zeros_.view()}; }  // [N, G]
    /// Codes whose columns are in the order of the solver's loop go to the layer's.
    void restore_columns(const std::vector<std::size_t>& order) {
        if (std::is_sorted(order.begin(), order.end())) return;
        auto restored = backend_.template make_matrix<std::uint8_t>(codes().rows, codes().cols);
        const auto lent = backend_.lend(matrix_view<const std::size_t>(order.data(), 1, order.size()));
        backend_.for_each_row(codes().rows, scatter_codes{codes(), restored.view(), lent.view()});
        codes_ = std::move(restored);
    }
    void download(quantized_view out) {
        backend_.download(codes_.view(), out.codes);
        backend_.download(scales_.view(), out.scales);
        backend_.download(zeros_.view(), out.zeros);
    }

 private:
    const B& backend_;
    backend_matrix<B, std::uint8_t> codes_;
    backend_matrix<B, float> scales_;
    backend_matrix<B, std::uint8_t> zeros_;
};

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

/// Rounds every weight of W [N, K] to the nearest value of its group's grid; groups are runs of `group_features` input
/// features. Throws as solve() does.
template <int Bits, class Grid, Backend B>
requires QuantGrid<Grid, Bits>
void round_to_nearest_into(const B& backend, matrix_view<const float> W, std::size_t group_features, quantized_view out,
                           const Grid& grid = {}) {
    detail::check_layer(W, W.cols, group_features, out);
    const auto weights = backend.lend(W);
    detail::layer_buffers<B> result(backend, W.rows, W.cols, out.scales.cols);
    backend.for_each_row(W.rows,
                         detail::fit_row<Bits, Grid>{weights.view(), {}, result.groups(), 0, group_features, grid});
    backend.for_each_row(
        W.rows, detail::round_row<Bits, Grid>{weights.view(), result.groups(), result.codes(), group_features, grid});
    result.download(out);
    for (std::size_t k = 0; k < W.cols; ++k) out.g_idx[k] = static_cast<std::int32_t>(k / group_features);
}

}  // namespace gptq
