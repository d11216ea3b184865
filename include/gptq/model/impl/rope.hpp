// The bodies of <gptq/model/rope.hpp>.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <numbers>
#include <span>
#include <vector>

#include <gptq/compiled.hpp>
#include <gptq/matrix_view.hpp>
#include <gptq/model/model_config.hpp>
#include <gptq/model/rope.hpp>

namespace gptq::model {

namespace detail {

/// How much of its speed pair i keeps by yarn: all of it before the pair that turns high_freq_factor times in the
/// original context, none after the one that turns low_freq_factor times.
inline double kept_by_yarn(const rope_settings& rope, std::size_t i, std::size_t features) {
    const auto dim = static_cast<double>(features);
    const auto pair_of = [&](double turns) {
        return dim * std::log(rope.original_positions / (turns * 2.0 * std::numbers::pi)) /
               (2.0 * std::log(rope.theta));
    };
    double first = pair_of(rope.high_freq_factor), last = pair_of(rope.low_freq_factor);
    if (rope.whole_pairs) {
        first = std::floor(first);
        last = std::ceil(last);
    }
    first = std::max(first, 0.0);
    last = std::min(last, dim - 1.0);
    if (first == last) last += 0.001;
    return 1.0 - std::clamp((static_cast<double>(i) - first) / (last - first), 0.0, 1.0);
}

/// Dynamic scaling slows pairs down by a larger base, the more so the longer a text is beyond the original context.
inline double theta_for(const rope_settings& rope, std::size_t features, std::size_t length) {
    if (rope.scaling != rope_scaling::dynamic) return rope.theta;
    const double share = std::max(static_cast<double>(length), rope.original_positions) / rope.original_positions;
    const auto dim = static_cast<double>(features);
    return rope.theta * std::pow(rope.factor * share - (rope.factor - 1.0), dim / (dim - 2.0));
}

}  // namespace detail

GPTQ_INLINE std::vector<float> rope_frequencies(const rope_settings& rope, std::size_t features, std::size_t length) {
    std::vector<float> frequencies(features / 2);
    const std::vector<float>& factors = rope.is_long(length) ? rope.long_factors : rope.short_factors;
    const double theta = detail::theta_for(rope, features, length);
    for (std::size_t i = 0; i < frequencies.size(); ++i) {
        const double exponent = 2.0 * static_cast<double>(i) / static_cast<double>(features);
        double frequency = 1.0 / std::pow(theta, exponent);
        if (rope.scaling == rope_scaling::linear) frequency /= rope.factor;
        if (rope.scaling == rope_scaling::longrope) frequency /= double{factors.at(i)};
        if (rope.scaling == rope_scaling::llama3) {
            // How often this pair turns within the original context decides: seldom, and it is slowed down by
            // `factor`; often, and it is left alone; between the two limits it is something between.
            const double turns = rope.original_positions * frequency / (2.0 * std::numbers::pi);
            const double between = (turns - rope.low_freq_factor) / (rope.high_freq_factor - rope.low_freq_factor);
            const double kept = std::min(1.0, std::max(0.0, between));
            frequency = kept * frequency + (1.0 - kept) * frequency / rope.factor;
        }
        if (rope.scaling == rope_scaling::yarn) {
            const double kept = detail::kept_by_yarn(rope, i, features);
            frequency = kept * frequency + (1.0 - kept) * frequency / rope.factor;
        }
        frequencies[i] = static_cast<float>(frequency);
    }
    return frequencies;
}

GPTQ_INLINE rope_table::rope_table(const rope_settings& rope, std::size_t features,
                                   std::span<const text_range> ranges) {
    std::size_t rows = 0, row = 0;
    for (const text_range& range : ranges) rows += range.count;
    cosines = matrix<float>(rows, features / 2);
    sines = matrix<float>(rows, features / 2);
    const auto factor = static_cast<float>(rope.attention_factor);
    for (const text_range& range : ranges) {
        const std::vector<float> frequencies = rope_frequencies(rope, features, range.seen());
        for (std::size_t p = range.first; p < range.first + range.count; ++p, ++row)
            for (std::size_t i = 0; i < frequencies.size(); ++i) {
                const float angle = static_cast<float>(p) * frequencies[i];
                cosines(row, i) = factor * std::cos(angle);
                sines(row, i) = factor * std::sin(angle);
            }
    }
}

namespace detail {

/// The pairs of one head; Neighbours as in rotary_heads, so that loops over either kind of pair become vectors.
template <bool Neighbours>
void rotate_head(float* head, std::span<const float> cosines, std::span<const float> sines) {
    const std::size_t half = cosines.size();
    for (std::size_t i = 0; i < half; ++i) {
        const auto [first, second] = rotary_heads{0, Neighbours}.pair(i, half);
        const float a = head[first];
        const float b = head[second];
        head[first] = a * cosines[i] - b * sines[i];
        head[second] = b * cosines[i] + a * sines[i];
    }
}

}  // namespace detail

GPTQ_INLINE void rotate(matrix_view<const float> cosines, matrix_view<const float> sines, const rotary_heads& heads,
                        matrix_view<float> x) {
    for (std::size_t r = 0; r < x.rows; ++r) {
        const std::size_t position = r % cosines.rows;
        for (std::size_t head = 0; head < x.cols; head += heads.head_dim)
            heads.neighbours ? detail::rotate_head<true>(&x(r, head), cosines.row(position), sines.row(position))
                             : detail::rotate_head<false>(&x(r, head), cosines.row(position), sines.row(position));
    }
}

}  // namespace gptq::model
