// How likely a model finds a token, from its logits.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>

#include <gptq/matrix_view.hpp>
#include <gptq/model/elementwise.hpp>

namespace gptq::model {

/// -log softmax(logits)[target], in double.
inline double negative_log_likelihood(std::span<const float> logits, std::size_t target) {
    const float top = largest(logits);
    double sum = 0.0;
    for (const float x : logits) sum += static_cast<double>(exp_nonpositive(x - top));
    return std::log(sum) + static_cast<double>(top) - static_cast<double>(logits[target]);
}

/// sum p log(p / q) for p = softmax(reference) and q = softmax(logits), in double and nats.
inline double kl_divergence(std::span<const float> reference, std::span<const float> logits) {
    const double log_reference = negative_log_likelihood(reference, 0) + static_cast<double>(reference[0]);
    const double log_sum = negative_log_likelihood(logits, 0) + static_cast<double>(logits[0]);
    double sum = 0.0;
    for (std::size_t i = 0; i < logits.size(); ++i) {
        const double log_p = static_cast<double>(reference[i]) - log_reference;
        sum += std::exp(log_p) * (log_p - (static_cast<double>(logits[i]) - log_sum));
    }
    return sum;
}

/// Row r of the logits of some tokens becomes `factor` times the gradient of -log likelihood of targets[r]; a token
/// without a target, which is a window's last one, has none.
struct likelihood_adjoint_row {
    matrix_view<float> logits;  // [count, vocab_size]
    std::span<const std::int32_t> targets;
    float factor = 1.0f;
    void operator()(std::size_t r) const {
        const std::span<float> row = logits.row(r);
        if (r >= targets.size()) return std::fill(row.begin(), row.end(), 0.0f);
        softmax(row);
        row[static_cast<std::size_t>(targets[r])] -= 1.0f;
        for (float& x : row) x *= factor;
    }
};

}  // namespace gptq::model
