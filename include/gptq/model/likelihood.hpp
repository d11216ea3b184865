// How likely a model finds a token, from its logits.
#pragma once

#include <cmath>
#include <cstddef>
#include <span>

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

}  // namespace gptq::model
