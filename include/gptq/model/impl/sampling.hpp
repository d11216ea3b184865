// The bodies of <gptq/model/sampling.hpp>.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <limits>
#include <numeric>
#include <random>
#include <span>
#include <string>
#include <vector>

#include <gptq/compiled.hpp>
#include <gptq/error.hpp>
#include <gptq/model/sampling.hpp>

namespace gptq::model {

GPTQ_INLINE void check_sampling(const sampling_options& o) {
    const auto refuse = [](const char* name, double value, const char* range) {
        throw unsupported_error(std::string("a ") + name + " of " + std::to_string(value) + "; give a number " + range);
    };
    if (!(o.temperature >= 0.0) || !std::isfinite(o.temperature)) refuse("temperature", o.temperature, "of at least 0");
    if (!(o.top_p >= 0.0 && o.top_p <= 1.0)) refuse("top-p", o.top_p, "from 0 to 1");
    if (!(o.min_p >= 0.0 && o.min_p <= 1.0)) refuse("min-p", o.min_p, "from 0 to 1");
    if (!(o.repetition_penalty > 0.0) || !std::isfinite(o.repetition_penalty))
        refuse("repetition penalty", o.repetition_penalty, "above 0");
}

}  // namespace gptq::model

namespace gptq::model {
namespace detail {

/// Scores of the tokens in `seen`, each once, are made less likely.
inline void penalize(std::span<double> scores, std::span<const std::int32_t> seen, double penalty) {
    std::vector<bool> done(scores.size());
    for (const std::int32_t id : seen) {
        const auto i = static_cast<std::size_t>(id);
        if (id < 0 || i >= scores.size() || done[i]) continue;
        done[i] = true;
        scores[i] = scores[i] > 0.0 ? scores[i] / penalty : scores[i] * penalty;
    }
}

inline void keep_top_k(std::span<double> scores, std::size_t k) {
    if (k == 0 || k >= scores.size()) return;
    std::vector<double> sorted(scores.begin(), scores.end());
    const auto last = sorted.begin() + static_cast<std::ptrdiff_t>(k - 1);
    std::nth_element(sorted.begin(), last, sorted.end(), std::greater<>());
    for (double& score : scores)
        if (score < *last) score = ruled_out;
}

/// exp((score - top) / temperature), the probability but for a factor that all have.
inline std::vector<double> weights_of(std::span<const double> scores, double temperature) {
    const double top = *std::max_element(scores.begin(), scores.end());
    std::vector<double> weights(scores.size());
    std::transform(scores.begin(), scores.end(), weights.begin(),
                   [&](double score) { return std::exp((score - top) / temperature); });
    return weights;
}

/// A token stays if those that are more likely sum up to less than p; the most likely one always does.
inline void keep_top_p(std::span<double> scores, double temperature, double p) {
    if (p >= 1.0) return;
    const std::vector<double> weights = weights_of(scores, temperature);
    const double sum = std::accumulate(weights.begin(), weights.end(), 0.0);
    std::vector<std::size_t> order(scores.size());
    std::iota(order.begin(), order.end(), std::size_t{0});
    std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return scores[a] > scores[b]; });
    double before = weights[order.front()];
    for (std::size_t i = 1; i < order.size(); ++i) {
        if (before >= p * sum) scores[order[i]] = ruled_out;
        before += weights[order[i]];
    }
}

inline void keep_min_p(std::span<double> scores, double temperature, double p) {
    if (p <= 0.0) return;
    const std::vector<double> weights = weights_of(scores, temperature);  // the most likely token's is 1
    for (std::size_t i = 0; i < scores.size(); ++i)
        if (weights[i] < p) scores[i] = ruled_out;
}

GPTQ_INLINE std::int32_t draw(std::span<const double> weights, std::mt19937_64& random) {
    const double sum = std::accumulate(weights.begin(), weights.end(), 0.0);
    // Not std::uniform_real_distribution: its results differ from library to library.
    double left = static_cast<double>(random() >> 11) * 0x1p-53 * sum;
    for (std::size_t i = 0; i < weights.size(); ++i) {
        left -= weights[i];
        if (left < 0.0) return static_cast<std::int32_t>(i);
    }
    // Rounding ate the last bit.
    return static_cast<std::int32_t>(std::max_element(weights.begin(), weights.end()) - weights.begin());
}

}  // namespace detail
}  // namespace gptq::model

namespace gptq::model {

GPTQ_INLINE std::vector<double> sampling_scores(std::span<const float> logits, const sampling_options& options,
                                                std::span<const std::int32_t> seen) {
    check_sampling(options);
    for (std::size_t i = 0; i < logits.size(); ++i)
        if (!std::isfinite(logits[i]))
            throw non_finite_error("the model's output for token " + std::to_string(i) + " is not finite");
    std::vector<double> scores(logits.begin(), logits.end());
    if (options.repetition_penalty != 1.0) detail::penalize(scores, seen, options.repetition_penalty);
    if (options.temperature == 0.0) return scores;
    detail::keep_top_k(scores, options.top_k);
    detail::keep_top_p(scores, options.temperature, options.top_p);
    detail::keep_min_p(scores, options.temperature, options.min_p);
    return scores;
}

GPTQ_INLINE std::int32_t choose_token(std::span<const float> logits, const sampling_options& options,
                                      std::span<const std::int32_t> seen, std::mt19937_64& random) {
    const std::vector<double> scores = sampling_scores(logits, options, seen);
    if (options.temperature == 0.0)
        return static_cast<std::int32_t>(std::max_element(scores.begin(), scores.end()) - scores.begin());
    return detail::draw(detail::weights_of(scores, options.temperature), random);
}

GPTQ_INLINE std::int32_t choose_token(std::span<const float> logits, double temperature, std::mt19937_64& random) {
    return choose_token(logits, sampling_options{.temperature = temperature}, {}, random);
}

}  // namespace gptq::model
