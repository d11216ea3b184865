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

/// How much of its speed pair i keeps by yarn: all of it before the pair that turns high_freq_factor times in the original
/// context, none after the one that turns low_freq_factor times.
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

}  // namespace detail

GPTQ_INLINE std::vector<float> rope_frequencies(const rope_settings& rope, std::size_t features) {
    std::vector<float> frequencies(features / 2);
    for (std::size_t i = 0; i < frequencies.size(); ++i) {
        const double exponent = 2.0 * static_cast<double>(i) / static_cast<double>(features);
        double frequency = 1.0 / std::pow(rope.theta, exponent);
        if (rope.scaling == rope_scaling::linear) frequency /= rope.factor;
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
                                   std::span<const std::size_t> positions)
    : cosines(positions.size(), features / 2), sines(positions.size(), features / 2) {
    const std::vector<float> frequencies = rope_frequencies(rope, features);
    const auto factor = static_cast<float>(rope.attention_factor);
    for (std::size_t p = 0; p < positions.size(); ++p)
        for (std::size_t i = 0; i < frequencies.size(); ++i) {
            const float angle = static_cast<float>(positions[p]) * frequencies[i];
            cosines(p, i) = factor * std::cos(angle);
            sines(p, i) = factor * std::sin(angle);
        }
}

namespace detail {

inline void rotate_head(float* head, std::span<const float> cosines, std::span<const float> sines) {
    const std::size_t half = cosines.size();
    for (std::size_t i = 0; i < half; ++i) {
        const float a = head[i];
        const float b = head[i + half];
        head[i] = a * cosines[i] - b * sines[i];
        head[i + half] = b * cosines[i] + a * sines[i];
    }
}

}  // namespace detail

GPTQ_INLINE void rotate(matrix_view<const float> cosines, matrix_view<const float> sines, std::size_t head_dim,
                        matrix_view<float> x) {
    for (std::size_t r = 0; r < x.rows; ++r) {
        const std::size_t position = r % cosines.rows;
        for (std::size_t head = 0; head < x.cols; head += head_dim)
            detail::rotate_head(&x(r, head), cosines.row(position), sines.row(position));
    }
}

}  // namespace gptq::model
