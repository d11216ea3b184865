// The grids of the GPTQ file formats: scale and zero point, value = scale * (code - zero).
#pragma once

#include <algorithm>
#include <cmath>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <type_traits>

#include <gptq/compiler.hpp>
#include <gptq/fold.hpp>
#include <gptq/grids/half_scale.hpp>
#include <gptq/grids/params.hpp>

namespace gptq {

namespace detail {

/// x rounded to the nearest whole number, ties to the even one, for |x| < 2^22. Adding 1.5 * 2^23 leaves no bits for a
/// fraction; unlike std::nearbyint, compilers turn it into vector instructions on every target.
constexpr float round_small(float x) {
    constexpr float shift = 0x1.8p23f;
    return (x + shift) - shift;
}

struct weight_range {
    float lo, hi;  ///< lo <= 0 <= hi
};

/// The smallest range that holds 0 and all of w.
constexpr weight_range range_of(std::span<const float> w) {
    const auto weight = [w](std::size_t k) { return w[k]; };
    const auto smaller = [](float a, float b) { return b < a ? b : a; };
    const auto larger = [](float a, float b) { return a < b ? b : a; };
    return {fold(w.size(), 0.0f, smaller, weight), fold(w.size(), 0.0f, larger, weight)};
}

}  // namespace detail

/// Encoding and decoding shared by every grid with a scale and a zero point.
struct affine_codec : half_scale {
    static constexpr bool affine = true;

    /// The code in [0, 2^Bits) whose value is nearest to x; ties go to the even multiple of the scale.
    template <int Bits>
    static constexpr std::uint8_t encode(float x, grid_params p) {
        return static_cast<std::uint8_t>(static_cast<int>(steps<Bits>(x, p)) + int{p.zero});
    }

    /// The value that x is rounded to: decode(encode(x)), in fewer instructions.
    template <int Bits>
    static constexpr float nearest(float x, grid_params p) {
        return p.scale * steps<Bits>(x, p);
    }

    /// The value that a code stands for.
    template <int Bits>
    static constexpr float decode(std::uint8_t code, grid_params p) {
        return p.scale * static_cast<float>(static_cast<int>(code) - static_cast<int>(p.zero));
    }

 private:
    /// The number of scales that is nearest to x, within what the codes can hold.
    template <int Bits>
    static constexpr float steps(float x, grid_params p) {
        constexpr float max_code = (1 << Bits) - 1;
        const float zero = p.zero;
        // In this order of arguments, what is no number counts as the lowest code.
        return detail::round_small(std::min(max_code - zero, std::max(-zero, x / p.scale)));
    }
};

/// Symmetric min-max grid: zero = 2^(Bits-1), scale = 2 max|w| / (2^Bits - 1). An all-zero group gets scale 1.
/// (The reference takes max|w| / maxq for a group without negative weights and then clips it at 7/15; this does not.)
struct symmetric : affine_codec {
    static constexpr bool sym = true;
    static constexpr int min_zero = 0;
    template <int Bits>
    static constexpr grid_params fit(std::span<const float> w) {
        const detail::weight_range range = detail::range_of(w);
        return from_range<Bits>(range.lo, range.hi);
    }
    /// The grid over [lo, hi], lo <= 0 <= hi.
    template <int Bits>
    static constexpr grid_params from_range(float lo, float hi) {
        constexpr float max_code = (1 << Bits) - 1;
        const float largest = std::max(-lo, hi);
        return {largest > 0.0f ? storable(2.0f * largest / max_code) : 1.0f, std::uint8_t{1u << (Bits - 1)}};
    }
};

/// Asymmetric min-max grid over [min(w, 0), max(w, 0)]; MinZero is the smallest zero point that may be chosen.
template <int MinZero>
struct basic_asymmetric : affine_codec {
    static constexpr bool sym = false;
    static constexpr int min_zero = MinZero;
    template <int Bits>
    static constexpr grid_params fit(std::span<const float> w) {
        const detail::weight_range range = detail::range_of(w);
        return from_range<Bits>(range.lo, range.hi);
    }
    /// The grid over [lo, hi], lo <= 0 <= hi.
    template <int Bits>
    static constexpr grid_params from_range(float lo, float hi) {
        constexpr float max_code = (1 << Bits) - 1;
        if (hi - lo <= 0.0f) return {1.0f, MinZero};
        const float scale = storable((hi - lo) / max_code);
        const float zero = std::nearbyint(-lo / scale);
        if (zero < MinZero) return {std::max(scale, storable(hi / (max_code - MinZero))), MinZero};
        return {scale, static_cast<std::uint8_t>(std::min(zero, max_code))};
    }
};

/// The asymmetric grid of the literature; its zero point may be 0.
using asymmetric = basic_asymmetric<0>;
/// The same with every zero point >= 1, for the "gptq" (v1) format, which stores zero - 1 and cannot hold a zero of 0.
using asymmetric_from_one = basic_asymmetric<1>;

namespace detail {

/// How many shrunk ranges a search tries. (Frantar et al.'s code tries these.)
inline constexpr int shrunk_ranges = 80;

/// The grid over a range shrunk by the factor 1 - i/100, i = 0 .. shrunk_ranges - 1.
template <class Grid, int Bits>
constexpr grid_params shrunk_grid(weight_range range, int i) {
    const float shrink = 1.0f - 0.01f * static_cast<float>(i);
    return Grid::template from_range<Bits>(shrink * range.lo, shrink * range.hi);
}

/// Whether the mirror image of a grid, that with the negative scale, has other values.
template <class Grid>
constexpr bool differs_mirrored() {
    if constexpr (requires { Grid::lopsided(); })
        return Grid::lopsided();
    else
        return Grid::sym;
}

constexpr grid_params mirror_image(grid_params p) { return {-p.scale, p.zero}; }

/// Of the shrunk grids over the range of w, the one with the least error(params); the first where errors overflow. If
/// Mirrored, the mirror image of each comes after it.
template <class Grid, int Bits, bool Mirrored, class Error>
constexpr grid_params search_range(std::span<const float> w, const Error& error) {
    const weight_range range = range_of(w);
    grid_params best = shrunk_grid<Grid, Bits>(range, 0);
    double best_error = std::numeric_limits<double>::infinity();
    const auto consider = [&](grid_params candidate) {
        const double candidate_error = error(candidate);
        if (!(candidate_error < best_error)) return;
        best = candidate;
        best_error = candidate_error;
    };
    for (int i = 0; i < shrunk_ranges; ++i) {
        const grid_params candidate = shrunk_grid<Grid, Bits>(range, i);
        consider(candidate);
        if constexpr (Mirrored) consider(mirror_image(candidate));
    }
    return best;
}

/// What a search tries, in its order, for backends that try candidates side by side.
template <class Grid, bool Mirrored>
struct search_candidates {
    static constexpr int candidates = Mirrored ? 2 * shrunk_ranges : shrunk_ranges;
    template <int Bits>
    static constexpr grid_params candidate(weight_range range, int i) {
        if constexpr (!Mirrored) return shrunk_grid<Grid, Bits>(range, i);
        const grid_params upright = shrunk_grid<Grid, Bits>(range, i / 2);
        return i % 2 == 0 ? upright : mirror_image(upright);
    }
};

}  // namespace detail

/// A grid whose fit is nothing but a search: of candidate<Bits>(range, i), i = 0 .. candidates - 1, the first with the
/// least sum of penalty(error, cost), summed as fold<chains> sums. What derives from such a grid may fit otherwise, and
/// is none.
template <class G, int Bits>
concept SearchedGrid = std::is_same_v<typename G::searcher, G> &&
    requires(detail::weight_range range, int i, float x, grid_params p) {
    { G::candidates } -> std::convertible_to<int>;
    { G::template candidate<Bits>(range, i) } -> std::same_as<grid_params>;
    { G::template nearest<Bits>(x, p) } -> std::same_as<float>;
    { G::penalty(x, x) } -> std::same_as<float>;
    typename G::penalty_sum;
    { G::chains } -> std::convertible_to<std::size_t>;
};

/// Searches the range of `Grid` for the least sum of |w - q|^2.4, the reference implementation's measure. Never a
/// larger error by that measure than Grid alone. Cost: 80 roundings a weight.
template <class Grid>
struct searched : Grid, detail::search_candidates<Grid, false> {
    using searcher = searched;
    using penalty_sum = double;
    static constexpr std::size_t chains = 1;
    static constexpr float penalty(float error, float /*cost*/) { return std::pow(std::fabs(error), 2.4f); }

    template <int Bits>
    static constexpr grid_params fit(std::span<const float> w) {
        return detail::search_range<Grid, Bits, false>(w, [w](grid_params p) {
            double total = 0.0;
            for (const float x : w) total += penalty(x - Grid::template nearest<Bits>(x, p), 1.0f);
            return total;
        });
    }
};

/// Searches the range of `Grid` for the least loss that the solver will see: the sum of costs[k] (w[k] - q[k])^2. Never
/// a larger one than Grid alone. A symmetric grid has one value more below 0 than above, and levels may be others below
/// than above; where that serves a group better the other way round, its scale is negative. (So are scales of
/// AutoRound, Cheng et al. 2023, and of llama.cpp's Q4_0.) Cost: 80 roundings a weight, 160 if the two sides differ.
template <class Grid>
struct searched_by_loss : Grid, detail::search_candidates<Grid, detail::differs_mirrored<Grid>()> {
    using searcher = searched_by_loss;
    using penalty_sum = float;
    static constexpr std::size_t chains = 8;
    static constexpr float penalty(float error, float cost) { return cost * error * error; }

    /// Whether scales may be negative.
    static constexpr bool mirrored = detail::differs_mirrored<Grid>();
    template <int Bits>
    static constexpr grid_params fit(std::span<const float> w, std::span<const float> costs) {
        return search<Bits>(w, [costs](std::size_t k) { return costs[k]; });
    }
    /// Where all weights count alike.
    template <int Bits>
    static constexpr grid_params fit(std::span<const float> w) {
        return search<Bits>(w, [](std::size_t) { return 1.0f; });
    }

 private:
    template <int Bits, class Cost>
    static constexpr grid_params search(std::span<const float> w, const Cost& cost) {
        return detail::search_range<Grid, Bits, mirrored>(w, [&](grid_params p) { return loss<Bits>(w, cost, p); });
    }

    template <int Bits, class Cost>
    static constexpr double loss(std::span<const float> w, const Cost& cost, grid_params p) {
        return detail::sum<chains>(
            w.size(), [&](std::size_t k) { return penalty(w[k] - Grid::template nearest<Bits>(w[k], p), cost(k)); });
    }
};

}  // namespace gptq
