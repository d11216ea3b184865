// Grids of groups, fitted by the lanes of a warp together.
//
// A search tries dozens of candidates on the same weights. Each lane tries some of them side by side on all weights,
// which all lanes read at once: nothing is passed around but, at the end, who found the best one. Each loss is summed
// in the order of the plain search, so that the grid found is the same.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>

#include <gptq/backends/cuda/context.hpp>
#include <gptq/backends/cuda/warp_sum.hpp>
#include <gptq/concepts.hpp>
#include <gptq/fit_groups.hpp>
#include <gptq/fold.hpp>
#include <gptq/grids/affine.hpp>
#include <gptq/groups.hpp>

namespace gptq::cuda {

/// Grid::nearest for one grid and many weights.
template <int Bits, class Grid>
class grid_rounder {
 public:
    constexpr grid_rounder() = default;
    constexpr explicit grid_rounder(grid_params p) : params_(p) {}
    constexpr float nearest(float x) const { return Grid::template nearest<Bits>(x, params_); }

 private:
    grid_params params_;
};

/// Without a division for each weight. The scale is a half: such quotients are far enough from the middle between two
/// floats for one correction by the remainder, which is exact, to round them as a division does. Weights are kept
/// within what the codes can hold before that, so that nothing overflows on the way.
template <int Bits, AffineGrid Grid>
class grid_rounder<Bits, Grid> {
 public:
    constexpr grid_rounder() = default;
    constexpr explicit grid_rounder(grid_params p) : scale_(p.scale), inverse_(1.0f / p.scale) {
        constexpr float max_code = (1 << Bits) - 1;
        const float zero = p.zero, first = p.scale * -zero, last = p.scale * (max_code - zero);
        lowest_ = std::min(first, last);
        highest_ = std::max(first, last);
    }
    constexpr float nearest(float x) const {
        // One instruction each on a device, which std::min and std::max are not: they promise more of what is no
        // number.
        const float kept = std::fmin(highest_, std::fmax(lowest_, x));
        const float quotient = kept * inverse_;
        const float remainder = std::fma(-quotient, scale_, kept);
        return scale_ * gptq::detail::round_small(std::fma(remainder, inverse_, quotient));
    }

 private:
    float scale_ = 1.0f, inverse_ = 1.0f, lowest_ = 0.0f, highest_ = 0.0f;
};

namespace detail {

/// The smallest range that holds 0 and weights[0] to weights[n - 1].                                       All lanes.
template <kernel_context Context, class Weights>
constexpr gptq::detail::weight_range range_by_lanes(Context& ctx, const Weights& weights, std::size_t n) {
    gptq::detail::weight_range range{0.0f, 0.0f};
    const auto include = [&range](float lo, float hi) {
        range.lo = lo < range.lo ? lo : range.lo;
        range.hi = range.hi < hi ? hi : range.hi;
    };
    for (std::size_t k = ctx.lane(); k < n; k += warp_size) include(weights[k], weights[k]);
    for (std::size_t mask = warp_size / 2; mask > 0; mask /= 2)
        include(ctx.shuffle_xor(range.lo, mask), ctx.shuffle_xor(range.hi, mask));
    return range;
}

/// The loss of each rounder.
template <class Grid, std::size_t Count, class Rounder, class Weights, class Cost>
constexpr auto losses_of(const std::array<Rounder, Count>& rounders, const Weights& weights, const Cost& cost,
                         std::size_t n) {
    using losses = std::array<typename Grid::penalty_sum, Count>;
    const auto add = [](losses a, const losses& b) {
        for (std::size_t c = 0; c < Count; ++c) a[c] += b[c];
        return a;
    };
    return gptq::detail::fold<Grid::chains>(n, losses{}, add, [&](std::size_t k) {
        const float weight = weights[k], cost_of_weight = cost(k);
        losses of_weight{};
        for (std::size_t c = 0; c < Count; ++c)
            of_weight[c] = Grid::penalty(weight - rounders[c].nearest(weight), cost_of_weight);
        return of_weight;
    });
}

/// The number of a candidate and its loss.
struct tried_candidate {
    double loss = std::numeric_limits<double>::infinity();
    std::uint32_t index = 0;
    /// What comes first in the plain search wins where losses are equal.
    constexpr bool better_than(const tried_candidate& other) const {
        return loss < other.loss || (loss == other.loss && index < other.index);
    }
};

/// The best of all lanes' candidates.                                                                       All lanes.
template <kernel_context Context>
constexpr tried_candidate best_of_lanes(Context& ctx, tried_candidate best) {
    for (std::size_t mask = warp_size / 2; mask > 0; mask /= 2) {
        const tried_candidate other{exchange(ctx, best.loss, mask), ctx.shuffle_xor(best.index, mask)};
        if (other.better_than(best)) best = other;
    }
    return best;
}

/// Lane l tries the candidates l, l + 32, ...                                                              All lanes.
template <int Bits, SearchedGrid<Bits> Grid, kernel_context Context, class Weights, class Cost>
constexpr grid_params search_by_lanes(Context& ctx, const Weights& weights, const Cost& cost, std::size_t n) {
    constexpr std::size_t count = Grid::candidates, each = (count + warp_size - 1) / warp_size;
    const gptq::detail::weight_range range = range_by_lanes(ctx, weights, n);
    const auto candidate = [range](std::size_t i) {
        return Grid::template candidate<Bits>(range, static_cast<int>(i));
    };
    const auto index = [&ctx](std::size_t c) {
        const std::size_t i = ctx.lane() + c * warp_size;
        return static_cast<std::uint32_t>(i < count ? i : 0);
    };
    std::array<grid_rounder<Bits, Grid>, each> rounders{};
    for (std::size_t c = 0; c < each; ++c) rounders[c] = grid_rounder<Bits, Grid>(candidate(index(c)));
    const auto losses = losses_of<Grid>(rounders, weights, cost, n);
    tried_candidate best;
    for (std::size_t c = 0; c < each; ++c) {
        const tried_candidate tried{double{losses[c]}, index(c)};
        if (tried.better_than(best)) best = tried;
    }
    return candidate(best_of_lanes(ctx, best).index);
}

/// Whether the grid depends on nothing but the range of its weights.
template <class Grid>
inline constexpr bool fits_range = false;
template <>
inline constexpr bool fits_range<symmetric> = true;
template <int MinZero>
inline constexpr bool fits_range<basic_asymmetric<MinZero>> = true;

}  // namespace detail

/// fit_group for weights[0] to weights[n - 1], which lie one after the other; `costs` has n elements or none. Every lane
/// gets the grid.                                                                                           All lanes.
template <int Bits, class Grid, kernel_context Context, class Weights>
constexpr grid_params fit_by_lanes(Context& ctx, const Grid& grid, const Weights& weights, std::span<const float> costs,
                                   std::size_t n) {
    if constexpr (SearchedGrid<Grid, Bits>) {
        const float* const cost = costs.data();
        if constexpr (CostAwareGrid<Grid, Bits>)
            if (!costs.empty())
                return detail::search_by_lanes<Bits, Grid>(
                    ctx, weights, [cost](std::size_t k) { return cost[k]; }, n);
        return detail::search_by_lanes<Bits, Grid>(
            ctx, weights, [](std::size_t) { return 1.0f; }, n);
    } else if constexpr (detail::fits_range<Grid>) {
        const gptq::detail::weight_range range = detail::range_by_lanes(ctx, weights, n);
        return Grid::template from_range<Bits>(range.lo, range.hi);
    } else {
        // Other grids are plain functions of a span.
        grid_params params{};
        if (ctx.lane() == 0) params = gptq::fit_group<Bits>(grid, std::span<const float>(&weights[0], n), costs);
        return {ctx.shuffle(params.scale, 0), static_cast<std::uint8_t>(ctx.shuffle(std::uint32_t{params.zero}, 0))};
    }
}

/// Runs groups_to_fit for the rows [0, rows), a warp a group.
template <int Bits, class Grid>
struct fit_kernel {
    static constexpr std::size_t warps = 4;
    static constexpr std::size_t block_threads = warps * warp_size;

    std::size_t rows;
    groups_to_fit<Bits, Grid> fit;

    constexpr std::size_t groups_in_row() const { return group_count(fit.W.cols, fit.group_features); }
    constexpr launch_shape launch() const { return {(rows * groups_in_row() + warps - 1) / warps, block_threads, 0}; }

    template <kernel_context Context>
    constexpr void operator()(Context& ctx) const {
        const std::size_t i = ctx.block() * warps + ctx.warp();
        if (i >= rows * groups_in_row()) return;
        const std::size_t r = i / groups_in_row(), g = i % groups_in_row();
        const std::size_t first = g * fit.group_features, n = std::min(fit.group_features, fit.W.cols - first);
        const std::span<const float> costs =
            fit.costs.rows == 0 ? std::span<const float>() : fit.costs.row(0).subspan(first, n);
        const grid_params params = fit_by_lanes<Bits>(ctx, fit.grid, fit.W.row(r).data() + first, costs, n);
        if (ctx.lane() == 0) fit.groups.set(r, fit.first_group + g, params);
    }
};

}  // namespace gptq::cuda
