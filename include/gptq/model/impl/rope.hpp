// The bodies of <gptq/model/rope.hpp>.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <numbers>
#include <vector>

#include <gptq/compiled.hpp>
#include <gptq/matrix_view.hpp>
#include <gptq/model/model_config.hpp>
#include <gptq/model/rope.hpp>

namespace gptq::model {

GPTQ_INLINE std::vector<float> rope_frequencies(const rope_settings& rope, std::size_t head_dim) {
    std::vector<float> frequencies(head_dim / 2);
    for (std::size_t i = 0; i < frequencies.size(); ++i) {
        const double exponent = 2.0 * static_cast<double>(i) / static_cast<double>(head_dim);
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
        frequencies[i] = static_cast<float>(frequency);
    }
    return frequencies;
}

GPTQ_INLINE rope_table::rope_table(const rope_settings& rope, std::size_t head_dim, std::size_t first,
                                   std::size_t count)
    : cos_(count, head_dim / 2), sin_(count, head_dim / 2) {
    const std::vector<float> frequencies = rope_frequencies(rope, head_dim);
    for (std::size_t p = 0; p < count; ++p)
        for (std::size_t i = 0; i < frequencies.size(); ++i) {
            const float angle = static_cast<float>(first + p) * frequencies[i];
            cos_(p, i) = std::cos(angle);
            sin_(p, i) = std::sin(angle);
        }
}

GPTQ_INLINE void rope_table::rotate(matrix_view<float> x) const {
    const std::size_t half = cos_.cols();
    for (std::size_t r = 0; r < x.rows; ++r) {
        const float* cosines = &cos_(r, 0);
        const float* sines = &sin_(r, 0);
        for (std::size_t head = 0; head < x.cols; head += 2 * half) rotate_head(&x(r, head), half, cosines, sines);
    }
}

GPTQ_INLINE void rope_table::rotate_head(float* head, std::size_t half, const float* cosines, const float* sines) {
    for (std::size_t i = 0; i < half; ++i) {
        const float a = head[i];
        const float b = head[i + half];
        head[i] = a * cosines[i] - b * sines[i];
        head[i + half] = b * cosines[i] + a * sines[i];
    }
}

GPTQ_INLINE rope_tables::rope_tables(const model_config& c, std::size_t first, std::size_t count) {
    if (!c.rotary()) return;
    full = rope_table(c.rope, c.head_dim, first, count);
    windowed = c.window_rope == c.rope ? full : rope_table(c.window_rope, c.head_dim, first, count);
}

GPTQ_INLINE const rope_table& rope_tables::of_block(const model_config& c, std::size_t index) const {
    return c.windows[index] != 0 ? windowed : full;
}

}  // namespace gptq::model
