// AWQ's search for ranges that clip (Lin et al., MLSys 2024, arXiv:2306.00978; llm-awq, auto_clip.py).
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>

#include <gptq/concepts.hpp>
#include <gptq/fit_groups.hpp>
#include <gptq/fold.hpp>
#include <gptq/matrix_view.hpp>
#include <gptq/quantized.hpp>

namespace gptq {

/// How far a range may shrink: to 20/20, ..., 11/20 of the group's largest magnitude.
inline constexpr int clip_steps = 20, clip_tried = 10;

/// Row r of a layer whose groups are clipped by what rounding them then costs: e H e' over the group's own inputs, e
/// being the clipped and rounded weights less the weights.
template <int Bits, class Grid>
struct clip_row {
    matrix_view<const float> W;  // [N, K]
    matrix_view<const float> H;  // [K, K], upper triangle
    matrix_view<float> clipped;  // [N, K], the result
    matrix_view<float> errors;   // [N, K], scratch
    std::size_t group_features;
    Grid grid;

    constexpr void operator()(std::size_t r) const {
        for (std::size_t first = 0; first < W.cols; first += group_features)
            clip_group(r, first, std::min(group_features, W.cols - first));
    }

 private:
    constexpr void clip_group(std::size_t r, std::size_t first, std::size_t width) const {
        float largest = 0.0f;
        for (std::size_t k = first; k < first + width; ++k) largest = std::max(largest, magnitude(W(r, k)));
        float best = largest;
        double least = std::numeric_limits<double>::infinity();
        for (int step = 0; step < clip_tried; ++step) {
            const float limit = largest * static_cast<float>(clip_steps - step) / static_cast<float>(clip_steps);
            const double loss = loss_at(r, first, width, limit);
            if (loss < least) least = loss, best = limit;
        }
        clip(r, first, width, best);
    }

    constexpr void clip(std::size_t r, std::size_t first, std::size_t width, float limit) const {
        for (std::size_t k = first; k < first + width; ++k) clipped(r, k) = std::min(std::max(W(r, k), -limit), limit);
    }

    constexpr double loss_at(std::size_t r, std::size_t first, std::size_t width, float limit) const {
        clip(r, first, width, limit);
        const auto w = clipped.row(r).subspan(first, width);
        const grid_params params = fit_group<Bits>(grid, w, {});
        const auto e = errors.row(r).subspan(first, width);
        for (std::size_t k = 0; k < width; ++k)
            e[k] = grid.template decode<Bits>(grid.template encode<Bits>(w[k], params), params) - W(r, first + k);
        double loss = 0.0;
        for (std::size_t i = 0; i < width; ++i) {
            const auto h = H.row(first + i).subspan(first + i, width - i);
            const float* const rest = e.data() + i;
            const float along =
                detail::sum(width - i, [&](std::size_t j) { return h[j] * rest[j]; }) - 0.5f * h[0] * rest[0];
            loss += 2.0 * double{e[i]} * double{along};
        }
        return loss;
    }

    static constexpr float magnitude(float x) { return x < 0.0f ? -x : x; }
};

/// The weights W [N, K] after clipping, in the backend's memory as H [K, K] is.
template <int Bits, class Grid, Backend B>
requires QuantGrid<Grid, Bits>
auto clip_groups(const B& backend, matrix_view<const float> W, matrix_view<const float> H, std::size_t group_features,
                 const Grid& grid = {}) {
    auto clipped = backend.template make_matrix<float>(W.rows, W.cols);
    auto errors = backend.template make_matrix<float>(W.rows, W.cols);
    backend.for_each_row(W.rows, clip_row<Bits, Grid>{W, H, clipped.view(), errors.view(), group_features, grid});
    return clipped;
}

}  // namespace gptq
