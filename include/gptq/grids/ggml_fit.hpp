// Scales and offsets of the blocks of <gptq/layouts/ggml_blocks.hpp>, fitted to weights by what each weight's error
// costs.
//
// Each group first gets the step s and the offset o of its own that lose least, value = s (code - zero) - o. The
// block's d and m are then the units in which the largest of them are the largest multiples. From there on, every group
// takes the multiples near its own that lose least, and d and m are fitted anew to all codes (least squares), as long
// as the loss falls.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>

#include <gptq/half.hpp>
#include <gptq/layouts/ggml_blocks.hpp>

namespace gptq {

namespace detail {

/// The values of one group: s (code - zero) - o.
struct ggml_line {
    float s = 1.0f, o = 0.0f;

    /// The code of the value nearest to x.
    std::uint8_t code(const layout::ggml_type& type, float x) const {
        const float steps = (x + o) / s + static_cast<float>(type.zero), most = static_cast<float>(type.max_code());
        return static_cast<std::uint8_t>(std::nearbyint(std::min(most, std::max(0.0f, steps))));
    }
    float value(const layout::ggml_type& type, std::uint8_t code) const {
        return s * static_cast<float>(int{code} - type.zero) - o;
    }
    double loss(const layout::ggml_type& type, std::span<const float> w, std::span<const float> costs) const {
        float total = 0.0f;
        for (std::size_t i = 0; i < w.size(); ++i) {
            const float error = w[i] - value(type, code(type, w[i]));
            total += costs[i] * error * error;
        }
        return total;
    }
};

/// Least squares of w against a u - b v, with weights: collects the sums, and solves for (u, v).
struct ggml_normal_equations {
    double aa = 0, ab = 0, bb = 0, aw = 0, bw = 0;

    void add(double a, double b, double w, double cost) {
        aa += cost * a * a;
        ab += cost * a * b;
        bb += cost * b * b;
        aw += cost * a * w;
        bw += cost * b * w;
    }
    /// u alone, v given.
    double first(double v) const { return aa > 0.0 ? (aw + ab * v) / aa : 0.0; }
    /// Both; v is 0 if it may not be negative and would be. Not finite where nothing decides.
    std::array<double, 2> both(bool may_be_negative) const {
        const double determinant = aa * bb - ab * ab;
        if (!(determinant > 1e-9 * aa * bb)) return {first(0.0), 0.0};
        const double v = (ab * aw - aa * bw) / determinant;
        if (v < 0.0 && !may_be_negative) return {first(0.0), 0.0};
        return {first(v), v};
    }
};

/// The line that loses least among those whose ends are shrunk ends of the weights, each refitted to its codes.
inline ggml_line fit_line(const layout::ggml_type& type, std::span<const float> w, std::span<const float> costs) {
    constexpr int candidates = 20, refits = 2;
    const bool offset = type.has_offset(), free = type.scales == layout::ggml_scales::one;
    const auto [least, most] = std::minmax_element(w.begin(), w.end());
    const float lo = offset ? (free ? *least : std::min(*least, 0.0f)) : 0.0f;
    const float reach = offset ? *most - lo : std::max(std::fabs(*least), std::fabs(*most));
    const float levels = static_cast<float>(offset ? type.max_code() : type.zero);
    ggml_line best{reach > 0.0f ? reach / levels : 0.0f, -lo};
    if (!(best.s > 0.0f)) return {0.0f, -lo};
    double best_loss = best.loss(type, w, costs);
    for (int i = 0; i < candidates; ++i)
        for (const float sign : {1.0f, -1.0f}) {
            if (offset && sign < 0.0f) continue;
            ggml_line line{sign * reach / levels * (1.1f - 0.6f * static_cast<float>(i) / candidates), -lo};
            for (int pass = 0; pass < refits; ++pass) {
                ggml_normal_equations sums;
                for (std::size_t k = 0; k < w.size(); ++k)
                    sums.add(int{line.code(type, w[k])} - type.zero, offset ? 1.0 : 0.0, w[k], costs[k]);
                const auto [s, o] = sums.both(free);
                line = {static_cast<float>(s), static_cast<float>(o)};
                if (line.s == 0.0f || !std::isfinite(line.s) || !std::isfinite(line.o)) break;
                const double loss = line.loss(type, w, costs);
                if (!(loss < best_loss)) continue;
                best = line;
                best_loss = loss;
            }
        }
    return best;
}

/// One block while it is fitted.
class ggml_block_fit {
 public:
    ggml_block_fit(const layout::ggml_type& type, std::span<const float> w, std::span<const float> costs)
        : type_(type), w_(w), costs_(costs) {
        float largest_step = 0.0f, largest_offset = 0.0f;
        for (std::size_t g = 0; g < type.groups(); ++g) {
            lines_[g] = fit_line(type, group(w, g), group(costs, g));
            if (std::fabs(lines_[g].s) > std::fabs(largest_step)) largest_step = lines_[g].s;
            largest_offset = std::max(largest_offset, lines_[g].o);
        }
        const auto most = static_cast<float>(type.max_scale());
        set_units(largest_step / most, one() ? -lines_[0].o : largest_offset / most);
    }

    layout::ggml_block run() {
        constexpr int most_rounds = 4;
        double loss = choose_multiples();
        layout::ggml_block best = block_;
        for (int round = 0; round < most_rounds; ++round) {
            refit_units();
            const double next = choose_multiples();
            if (!(next < loss)) break;
            loss = next;
            best = block_;
        }
        return best;
    }

 private:
    bool one() const { return type_.scales == layout::ggml_scales::one; }

    std::span<const float> group(std::span<const float> all, std::size_t g) const {
        return all.subspan(g * type_.group, type_.group);
    }

    /// d and m as halves that are numbers; d is not 0.
    void set_units(float d, float m) {
        constexpr float least = 0x1p-24f, most = 65504.0f;
        block_.d = to_half(std::clamp(d, -most, most));
        if (to_float(block_.d) == 0.0f) block_.d = to_half(least);
        block_.m = to_half(std::clamp(m, -most, most));
    }

    ggml_line line(int scale, int min) const {
        return {to_float(block_.d) * static_cast<float>(scale), to_float(block_.m) * static_cast<float>(min)};
    }

    /// The multiple of `unit` nearest to x, at least `least`.
    int multiple(float x, half unit, int least) const {
        const float u = to_float(unit), most = static_cast<float>(type_.max_scale());
        return u == 0.0f ? least : static_cast<int>(std::nearbyint(std::clamp(x / u, static_cast<float>(least), most)));
    }

    /// Every group takes the multiples around its line's that lose least. A multiple of 0 would leave one value, and is
    /// no better than 1. Returns the loss of the block.
    double choose_multiples() {
        double total = 0.0;
        for (std::size_t g = 0; g < type_.groups(); ++g) total += choose_multiples(g);
        return total;
    }

    double choose_multiples(std::size_t g) {
        const auto w = group(w_, g), costs = group(costs_, g);
        if (one()) {
            block_.scales[g] = 1;
            block_.mins[g] = type_.has_offset() ? -1 : 0;
            return line(1, block_.mins[g]).loss(type_, w, costs);
        }
        const bool offset = type_.has_offset();
        const int most = type_.max_scale(), near_scale = multiple(lines_[g].s, block_.d, offset ? 1 : -most);
        const int near_min = offset ? multiple(lines_[g].o, block_.m, 0) : 0;
        double best = std::numeric_limits<double>::infinity();
        for (int scale = std::max(near_scale - 1, -most); scale <= std::min(near_scale + 1, most); ++scale)
            for (int min = std::max(near_min - 1, 0); min <= (offset ? std::min(near_min + 1, most) : 0); ++min) {
                if (scale == 0 || (offset && scale < 0)) continue;
                const double loss = line(scale, min).loss(type_, w, costs);
                if (!(loss < best)) continue;
                best = loss;
                block_.scales[g] = scale;
                block_.mins[g] = min;
            }
        return best;
    }

    /// d and m that lose least with the codes that rounding gives now.
    void refit_units() {
        ggml_normal_equations sums;
        for (std::size_t i = 0; i < type_.weights; ++i) {
            const std::size_t g = i / type_.group;
            const int code = line(block_.scales[g], block_.mins[g]).code(type_, w_[i]);
            sums.add(block_.scales[g] * (code - type_.zero), block_.mins[g], w_[i], costs_[i]);
        }
        const auto [d, m] = sums.both(one());
        if (std::isfinite(d) && std::isfinite(m)) set_units(static_cast<float>(d), static_cast<float>(m));
    }

    const layout::ggml_type& type_;
    std::span<const float> w_, costs_;  // [weights]
    std::array<ggml_line, 16> lines_;   // of each group by itself
    layout::ggml_block block_{};
};

}  // namespace detail

/// The block of `type`, without codes, for the weights w, costs[i] > 0 being the loss of a squared error of 1 in w[i].
/// Both have type.weights elements. No scale is 0, and all numbers are finite. About 200 roundings a weight.
inline layout::ggml_block fit_ggml_block(const layout::ggml_type& type, std::span<const float> w,
                                         std::span<const float> costs) {
    return detail::ggml_block_fit(type, w, costs).run();
}

/// The code of the value nearest to x that weight i of a block can take.
inline std::uint8_t ggml_code(const layout::ggml_type& type, const layout::ggml_block& block, std::size_t i, float x) {
    const std::size_t g = i / type.group;
    return detail::ggml_line{block.step(g), block.offset(g)}.code(type, x);
}

}  // namespace gptq
