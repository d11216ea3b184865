// The grids of the GPTQ file formats: scale and zero point, value = scale * (code - zero).
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <span>

#include <gptq/grids/params.hpp>
#include <gptq/half.hpp>

namespace gptq {

/// Encoding and decoding shared by every grid with a scale and a zero point.
struct affine_codec {
    /// The code in [0, 2^Bits) whose value is nearest to x; ties go to the even multiple of the scale.
    template <int Bits>
    static std::uint8_t encode(float x, grid_params p) {
        constexpr float max_code = (1 << Bits) - 1;
        const float code = std::nearbyint(x / p.scale) + static_cast<float>(p.zero);
        return static_cast<std::uint8_t>(std::clamp(code, 0.0f, max_code));
    }

    /// The value that a code stands for.
    template <int Bits>
    static float decode(std::uint8_t code, grid_params p) {
        return p.scale * static_cast<float>(static_cast<int>(code) - static_cast<int>(p.zero));
    }

    /// `scale` as a half can hold it: never 0, and never infinite, whatever the weights were.
    static float storable(float scale) {
        constexpr float smallest = 0x1p-24f;
        constexpr float largest = 65504.0f;
        return round_to_half(std::clamp(scale, smallest, largest));
    }
};

/// Symmetric min-max grid: zero = 2^(Bits-1), scale = 2 max|w| / (2^Bits - 1). An all-zero group gets scale 1.
/// (The reference takes max|w| / maxq for a group without negative weights and then clips it at 7/15; this does not.)
struct symmetric : affine_codec {
    static constexpr bool sym = true;
    template <int Bits>
    static grid_params fit(std::span<const float> w) {
        float largest = 0.0f;
        for (const float x : w) largest = std::max(largest, std::fabs(x));
        return from_range<Bits>(-largest, largest);
    }
    /// The grid over [lo, hi], lo <= 0 <= hi.
    template <int Bits>
    static grid_params from_range(float lo, float hi) {
        constexpr float max_code = (1 << Bits) - 1;
        const float largest = std::max(-lo, hi);
        return {largest > 0.0f ? storable(2.0f * largest / max_code) : 1.0f, std::uint8_t{1u << (Bits - 1)}};
    }
};

/// Asymmetric min-max grid over [min(w, 0), max(w, 0)]; MinZero is the smallest zero point that may be chosen.
template <int MinZero>
struct basic_asymmetric : affine_codec {
    static constexpr bool sym = false;
    template <int Bits>
    static grid_params fit(std::span<const float> w) {
        float lo = 0.0f, hi = 0.0f;
        for (const float x : w) {
            lo = std::min(lo, x);
            hi = std::max(hi, x);
        }
        return from_range<Bits>(lo, hi);
    }
    /// The grid over [lo, hi], lo <= 0 <= hi.
    template <int Bits>
    static grid_params from_range(float lo, float hi) {
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

/// Shrinks the range of `Grid` by factors 1 - i/100, i = 0..79, and keeps the one with the least sum of |w - q|^2.4
/// (the reference implementation's search). Never a larger error by that measure than Grid alone.
template <class Grid>
struct searched : Grid {
    template <int Bits>
    static grid_params fit(std::span<const float> w) {
        const auto [lowest, highest] = std::minmax_element(w.begin(), w.end());
        const float lo = w.empty() ? 0.0f : std::min(*lowest, 0.0f);
        const float hi = w.empty() ? 0.0f : std::max(*highest, 0.0f);
        grid_params best = Grid::template from_range<Bits>(lo, hi);  // stays where the errors overflow
        double best_error = std::numeric_limits<double>::infinity();
        for (int i = 0; i < 80; ++i) {
            const float shrink = 1.0f - 0.01f * static_cast<float>(i);
            const auto candidate = Grid::template from_range<Bits>(shrink * lo, shrink * hi);
            const double error = range_error<Bits>(w, candidate);
            if (error < best_error) {
                best = candidate;
                best_error = error;
            }
        }
        return best;
    }

 private:
    template <int Bits>
    static double range_error(std::span<const float> w, grid_params p) {
        double total = 0.0;
        for (const float x : w) {
            const float q = Grid::template decode<Bits>(Grid::template encode<Bits>(x, p), p);
            total += std::pow(std::fabs(x - q), 2.4f);
        }
        return total;
    }
};

}  // namespace gptq
