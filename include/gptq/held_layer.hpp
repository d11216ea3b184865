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
#include <gptq/grids/affine.hpp>
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

/// The weights that the codes of row r stand for. Every affine grid decodes alike, whatever its bits.
struct dequantize_row {
    matrix_view<const std::uint8_t> codes;  // [N, K]
    group_parameters groups;                // [N, G]
    matrix_view<const std::int32_t> g_idx;  // [1, K]
    matrix_view<float> to;                  // [N, K]
    constexpr void operator()(std::size_t r) const noexcept {
        for (std::size_t k = 0; k < to.cols; ++k)
            to(r, k) = asymmetric::decode<8>(codes(r, k), groups.get(r, static_cast<std::size_t>(g_idx(0, k))));
    }
};

}  // namespace detail

/// Codes, scales and zero points of a layer [N, K] in G groups in the memory of B. quantized_layer is the same in host
/// memory, for those who keep it.
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

    matrix_view<std::uint8_t> codes() { return codes_.view(); }            // [N, K]
    group_parameters groups() { return {scales_.view(), zeros_.view()}; }  // [N, G]
    std::vector<std::int32_t>& g_idx() { return g_idx_; }                  // [K], in host memory

    /// Codes whose columns are in the order of the solver's loop go to the layer's.
    void restore_columns(const std::vector<std::size_t>& order) {
        if (std::is_sorted(order.begin(), order.end())) return;
        auto restored = backend_.template make_matrix<std::uint8_t>(codes().rows, codes().cols);
        const auto lent = backend_.lend(matrix_view<const std::size_t>(order.data(), 1, order.size()));
        backend_.for_each_row(codes().rows, detail::scatter_codes{codes(), restored.view(), lent.view()});
        codes_ = std::move(restored);
    }

    /// What the codes of an affine grid stand for, W [N, K] in the backend's memory.
    void dequantize(matrix_view<float> W) {
        const auto lent = backend_.lend(matrix_view<const std::int32_t>(g_idx_.data(), 1, g_idx_.size()));
        backend_.for_each_row(W.rows, detail::dequantize_row{codes(), groups(), lent.view(), W});
    }

    void upload(const_quantized_view from) {
        copy_in(from.codes, codes());
        copy_in(from.scales, groups().scales);
        copy_in(from.zeros, groups().zeros);
        std::copy(from.g_idx.begin(), from.g_idx.end(), g_idx_.begin());
    }
    /// Throws shape_error where the shapes differ.
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
};

}  // namespace gptq
