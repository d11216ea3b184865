// Round-to-nearest: the baseline that everything is compared with, and the last resort where no factorization succeeds.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <gptq/concepts.hpp>
#include <gptq/error.hpp>
#include <gptq/finite.hpp>
#include <gptq/fit_groups.hpp>
#include <gptq/groups.hpp>
#include <gptq/held_layer.hpp>
#include <gptq/matrix_view.hpp>
#include <gptq/quantized.hpp>

namespace gptq {

namespace detail {

/// Rounds row r to its grids; groups are runs of `group_features` columns.
template <int Bits, class Grid>
struct round_row {
    matrix_view<const float> W;       // [N, K]
    group_parameters groups;          // [N, G]
    matrix_view<std::uint8_t> codes;  // [N, K]
    std::size_t group_features;
    Grid grid;
    constexpr void operator()(std::size_t r) const {
        for (std::size_t k = 0; k < W.cols; ++k)
            codes(r, k) = grid.template encode<Bits>(W(r, k), groups.get(r, k / group_features));
    }
};

/// Throws shape_error unless W is a layer of `in_features` inputs, non_finite_error for NaN and infinity in it.
inline void check_weights(matrix_view<const float> W, std::size_t in_features) {
    if (W.cols != in_features)
        throw shape_error("weights are [out_features, in_features] = " + shape_string(W.rows, W.cols) +
                          ", but the inputs they are quantized for have " + std::to_string(in_features) + " features");
    if (W.rows == 0 || W.cols == 0)
        throw shape_error("weights: the layer " + shape_string(W.rows, W.cols) + " is empty");
    require_finite(W, "weights");
}

/// The same, and shape_error unless `out` has room for the result.
inline void check_layer(matrix_view<const float> W, std::size_t in_features, std::size_t group_features,
                        quantized_view out) {
    check_weights(W, in_features);
    const std::size_t groups = group_count(in_features, group_features);
    const bool fits = out.codes.rows == W.rows && out.codes.cols == W.cols && out.scales.rows == W.rows &&
                      out.scales.cols == groups && out.zeros.rows == W.rows && out.zeros.cols == groups &&
                      out.g_idx.size() == W.cols;
    if (!fits)
        throw shape_error("quantize: the result has no room for a layer " + shape_string(W.rows, W.cols) + " in " +
                          std::to_string(groups) + " groups");
}

/// Throws concept_error unless every scale is a finite number other than 0.
template <Backend B>
void check_scales(const B& backend, group_parameters groups) {
    matrix<float> scales(groups.scales.rows, groups.scales.cols);  // [N, G]
    backend.download(groups.scales, scales.view());
    for (std::size_t n = 0; n < scales.rows(); ++n)
        for (std::size_t g = 0; g < scales.cols(); ++g)
            if (!is_finite(scales(n, g)) || scales(n, g) == 0.0f)
                throw concept_error("QuantGrid 1: fit returns the scale " + std::to_string(scales(n, g)) +
                                    " for group " + std::to_string(g) + " of row " + std::to_string(n) +
                                    "; a scale is a finite number other than 0");
}

}  // namespace detail

/// Rounds every weight of W [N, K], in the backend's memory, to the nearest value of its group's grid; groups are runs
/// of `group_features` input features. Throws concept_error for a grid whose scales are unusable.
template <int Bits, class Grid, Backend B>
requires QuantGrid<Grid, Bits>
void round_to_nearest_into(in_backend_t, const B& backend, matrix_view<const float> W, std::size_t group_features,
                           held_layer<B>& out, const Grid& grid = {}) {
    fit_groups(backend, groups_to_fit<Bits, Grid>{W, {}, out.groups(), 0, group_features, grid});
    detail::check_scales(backend, out.groups());
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
