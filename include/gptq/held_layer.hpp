// held_layer: a layer that is being quantized, in the memory of a backend.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include <gptq/concepts.hpp>
#include <gptq/error.hpp>
#include <gptq/matrix_view.hpp>
#include <gptq/quantized.hpp>

namespace gptq {

/// Says that the matrices of a call lie in the backend's memory already, where without it they lie in host memory.
struct in_backend_t {};
inline constexpr in_backend_t in_backend;

namespace detail {

template <Backend B, class T>
using backend_matrix = decltype(std::declval<const B&>().template make_matrix<T>(0, 0));

/// Row r of `from`, into `to`.
template <class T>
struct copy_row_of {
    matrix_view<const T> from;
    matrix_view<T> to;
    constexpr void operator()(std::size_t r) const noexcept {
        for (std::size_t c = 0; c < to.cols; ++c) to(r, c) = from(r, c);
    }
};
using copy_row = copy_row_of<float>;

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

/// The weights that the codes of row r stand for: scale * (level - zero).
struct dequantize_row {
    matrix_view<const std::uint8_t> codes;  // [N, K]
    group_parameters groups;                // [N, G]
    matrix_view<const std::int32_t> g_idx;  // [1, K]
    matrix_view<const float> levels;        // [1, 256], of level_table
    matrix_view<float> to;                  // [N, K]
    constexpr void operator()(std::size_t r) const noexcept {
        for (std::size_t k = 0; k < to.cols; ++k) {
            const grid_params p = groups.get(r, static_cast<std::size_t>(g_idx(0, k)));
            to(r, k) = p.scale * (levels(0, codes(r, k)) - static_cast<float>(p.zero));
        }
    }
};

}  // namespace detail

/// Codes, scales and zero points of a layer [N, K] in G groups in the memory of B. quantized_layer is the same in host
/// memory, and is what callers keep.
template <Backend B>
class held_layer {
 public:
    /// The codes are not set; g_idx is to be.
    held_layer(const B& backend, std::size_t N, std::size_t K, std::size_t G)
        : backend_(backend),
          codes_(backend.template make_matrix<std::uint8_t>(N, K)),
          scales_(backend.template make_matrix<float>(N, G)),
          zeros_(backend.template make_matrix<std::uint8_t>(N, G)),
          g_idx_(K) {}

    matrix_view<std::uint8_t> codes() { return codes_.view(); }            ///< [N, K]
    group_parameters groups() { return {scales_.view(), zeros_.view()}; }  ///< [N, G]
    std::vector<std::int32_t>& g_idx() { return g_idx_; }                  ///< [K], in host memory

    /// Brings codes whose columns are in the order of the solver's loop into the layer's order.
    void restore_columns(const std::vector<std::size_t>& order) {
        if (std::is_sorted(order.begin(), order.end())) return;
        auto restored = backend_.template make_matrix<std::uint8_t>(codes().rows, codes().cols);
        const auto lent = backend_.lend(matrix_view<const std::size_t>(order.data(), 1, order.size()));
        backend_.for_each_row(codes().rows, detail::scatter_codes{codes(), restored.view(), lent.view()});
        codes_ = std::move(restored);
    }

    /// Must be called when `grid` has made the codes. From then on they stand for the grid's values; before, they stand
    /// for the values of an affine grid.
    template <int Bits, class Grid>
    requires QuantGrid<Grid, Bits>
    void made_by([[maybe_unused]] const Grid& grid) {
        has_levels_ = LevelGrid<Grid, Bits>;
        if constexpr (LevelGrid<Grid, Bits>) levels_ = levels_of<Bits>(grid);
    }

    /// What the codes stand for, W [N, K] in the backend's memory. Throws unsupported_error where they are of a grid
    /// that has no levels.
    void dequantize(matrix_view<float> W) {
        if (!has_levels_)
            throw unsupported_error(
                "dequantize: the grid of these codes is no LevelGrid, so only the grid itself knows their values; "
                "give it levels<Bits>(), or download the codes and use the grid's decode");
        const auto table = level_table(levels_);
        const auto levels = backend_.lend(matrix_view<const float>(table.data(), 1, table.size()));
        const auto lent = backend_.lend(matrix_view<const std::int32_t>(g_idx_.data(), 1, g_idx_.size()));
        backend_.for_each_row(W.rows, detail::dequantize_row{codes(), groups(), lent.view(), levels.view(), W});
    }

    void upload(const_quantized_view from) {
        levels_.assign(from.levels.begin(), from.levels.end());
        has_levels_ = true;
        copy_in(from.codes, codes());
        copy_in(from.scales, groups().scales);
        copy_in(from.zeros, groups().zeros);
        std::copy(from.g_idx.begin(), from.g_idx.end(), g_idx_.begin());
    }
    /// All but the levels, which are the grid's. Throws shape_error where the shapes differ.
    void download(quantized_view out) {
        backend_.download(codes_.view(), out.codes);
        backend_.download(scales_.view(), out.scales);
        backend_.download(zeros_.view(), out.zeros);
        if (out.g_idx.size() != g_idx_.size()) throw shape_error("download: g_idx is of another layer");
        std::copy(g_idx_.begin(), g_idx_.end(), out.g_idx.begin());
    }

 private:
    template <class T>
    void copy_in(matrix_view<const T> host, matrix_view<T> mine) const {
        const auto lent = backend_.lend(host);
        backend_.for_each_row(mine.rows, detail::copy_row_of<T>{lent.view(), mine});
    }

    B backend_;
    detail::backend_matrix<B, std::uint8_t> codes_;
    detail::backend_matrix<B, float> scales_;
    detail::backend_matrix<B, std::uint8_t> zeros_;
    std::vector<std::int32_t> g_idx_;
    std::vector<float> levels_;  // [2^bits], or empty: 0, 1, 2, ...
    bool has_levels_ = true;
};

}  // namespace gptq
