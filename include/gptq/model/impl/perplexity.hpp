// The bodies of <gptq/model/perplexity.hpp>.
#pragma once

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include <gptq/compiled.hpp>
#include <gptq/error.hpp>
#include <gptq/matrix_view.hpp>
#include <gptq/model/buffers.hpp>
#include <gptq/model/decoder.hpp>
#include <gptq/model/elementwise.hpp>
#include <gptq/model/perplexity.hpp>

namespace gptq::model {

GPTQ_INLINE double negative_log_likelihood(std::span<const float> logits, std::size_t target) {
    const float top = largest(logits);
    double sum = 0.0;
    for (const float x : logits) sum += static_cast<double>(exp_nonpositive(x - top));
    return std::log(sum) + static_cast<double>(top) - static_cast<double>(logits[target]);
}

GPTQ_INLINE double kl_divergence(std::span<const float> reference, std::span<const float> logits) {
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

namespace gptq::model {
namespace detail {

/// Logits held at a time, in numbers: 32 MB.
inline constexpr std::size_t logits_held = std::size_t{1} << 23;

/// The sums that a perplexity and its error are made of.
class nll_sums {
 public:
    /// A window of `count` scored tokens whose -log p sum up to `sum`. Throws non_finite_error where that is not finite.
    void add(double sum, std::size_t count) {
        if (!std::isfinite(sum))
            throw non_finite_error("the model's output is not finite in window " + std::to_string(sums_.size()) +
                                   " of the text");
        sums_.push_back(sum);
        counts_.push_back(static_cast<double>(count));
    }

    perplexity_result result() const {
        double sum = 0.0, tokens = 0.0, squares = 0.0;
        for (std::size_t w = 0; w < sums_.size(); ++w) sum += sums_[w], tokens += counts_[w];
        perplexity_result result{.nll = sum / tokens, .tokens = static_cast<std::size_t>(tokens)};
        result.perplexity = std::exp(result.nll);
        result.windows = sums_.size();
        if (sums_.size() < 2) return result;
        for (std::size_t w = 0; w < sums_.size(); ++w) squares += std::pow(sums_[w] - result.nll * counts_[w], 2.0);
        const auto windows = static_cast<double>(sums_.size());
        result.standard_error = result.perplexity * std::sqrt(windows / (windows - 1.0) * squares) / tokens;
        return result;
    }

 private:
    std::vector<double> sums_, counts_;
};

/// Calls f(window) for each window of a text that has a token to score, and then on_window(done, total).
template <class F, class OnWindow>
void for_each_window(std::span<const std::int32_t> tokens, const perplexity_options& options, F&& f,
                     OnWindow& on_window) {
    if (options.seqlen < 2) throw shape_error("windows of fewer than two tokens have nothing to score");
    if (tokens.size() < 2)
        throw shape_error("the text has " + std::to_string(tokens.size()) + " tokens; at least two are needed");
    const std::size_t length = std::min(options.seqlen, tokens.size());
    // A single token left over at the end is not a window.
    const std::size_t windows = (tokens.size() - 2) / length + 1;
    std::vector<std::int32_t> window;
    for (std::size_t w = 0; w < windows; ++w) {
        const auto part = tokens.subspan(w * length, std::min(length, tokens.size() - w * length));
        window.clear();
        if (options.bos) window.push_back(*options.bos);
        window.insert(window.end(), part.begin(), part.end());
        f(std::span<const std::int32_t>(window));
        on_window(w + 1, windows);
    }
}

/// The sum of -log p over all tokens of a window but the first. Logits are computed for some tokens at a time.
inline double window_nll(const decoder& model, std::span<const std::int32_t> window, scratch_matrix& memory) {
    const auto states = model.head_states(window);
    const std::size_t vocabulary = model.config().vocab_size;
    const std::size_t chunk = std::max<std::size_t>(1, logits_held / vocabulary);
    double sum = 0.0;
    for (std::size_t first = 0; first + 1 < window.size(); first += chunk) {
        const std::size_t count = std::min(chunk, window.size() - 1 - first);
        const auto logits = memory.shaped(count, vocabulary);
        model.head(view_of(states).block(first, count, 0, states.shape()[1]), logits);
        for (std::size_t t = 0; t < count; ++t)
            sum += negative_log_likelihood(logits.row(t), static_cast<std::size_t>(window[first + t + 1]));
    }
    return sum;
}

}  // namespace detail
}  // namespace gptq::model

namespace gptq::model {

GPTQ_INLINE perplexity_result evaluate_perplexity(const decoder& model, std::span<const std::int32_t> tokens,
                                                  const perplexity_options& options,
                                                  const std::function<void(std::size_t, std::size_t)>& on_window) {
    const auto start = std::chrono::steady_clock::now();
    detail::nll_sums sums;
    scratch_matrix memory;
    const auto score = [&](std::span<const std::int32_t> window) {
        sums.add(detail::window_nll(model, window, memory), window.size() - 1);
    };
    detail::for_each_window(tokens, options, score, on_window);
    perplexity_result result = sums.result();
    result.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    return result;
}

GPTQ_INLINE perplexity_result evaluate_perplexity(const decoder& model, std::span<const std::int32_t> tokens,
                                                  const perplexity_options& options) {
    return evaluate_perplexity(model, tokens, options, [](std::size_t, std::size_t) {});
}

}  // namespace gptq::model

namespace gptq::model {
namespace detail {

/// Sums over the scored tokens of a window, of a model and the one it was made from.
struct paired_sums {
    double nll = 0.0, baseline_nll = 0.0, divergence = 0.0, same = 0.0;

    void add(std::span<const float> logits, std::span<const float> baseline, std::size_t target) {
        nll += negative_log_likelihood(logits, target);
        baseline_nll += negative_log_likelihood(baseline, target);
        divergence += kl_divergence(baseline, logits);
        const auto top = [](std::span<const float> x) { return std::max_element(x.begin(), x.end()) - x.begin(); };
        same += top(logits) == top(baseline) ? 1.0 : 0.0;
    }
};

/// Scratch memory for the logits of two models.
struct paired_memory {
    scratch_matrix model, baseline;
};

/// Logits of both models are computed for some tokens at a time.
inline paired_sums compare_window(const decoder& model, const decoder& baseline, std::span<const std::int32_t> window,
                                  paired_memory& memory) {
    const auto states = model.head_states(window), baseline_states = baseline.head_states(window);
    const std::size_t vocabulary = model.config().vocab_size;
    const std::size_t chunk = std::max<std::size_t>(1, logits_held / vocabulary);
    paired_sums sums;
    for (std::size_t first = 0; first + 1 < window.size(); first += chunk) {
        const std::size_t count = std::min(chunk, window.size() - 1 - first);
        const auto logits = memory.model.shaped(count, vocabulary), others = memory.baseline.shaped(count, vocabulary);
        model.head(view_of(states).block(first, count, 0, states.shape()[1]), logits);
        baseline.head(view_of(baseline_states).block(first, count, 0, baseline_states.shape()[1]), others);
        for (std::size_t t = 0; t < count; ++t)
            sums.add(logits.row(t), others.row(t), static_cast<std::size_t>(window[first + t + 1]));
    }
    return sums;
}

}  // namespace detail
}  // namespace gptq::model

namespace gptq::model {

GPTQ_INLINE paired_result evaluate_pair(const decoder& model, const decoder& baseline,
                                        std::span<const std::int32_t> tokens, const perplexity_options& options,
                                        const std::function<void(std::size_t, std::size_t)>& on_window) {
    if (model.config().vocab_size != baseline.config().vocab_size)
        throw shape_error("the model has a vocabulary of " + std::to_string(model.config().vocab_size) +
                          " tokens, the baseline one of " + std::to_string(baseline.config().vocab_size) +
                          "; compare it with the model that it was made from");
    const auto start = std::chrono::steady_clock::now();
    detail::nll_sums sums, baseline_sums;
    detail::paired_memory memory;
    agreement_result total;
    const auto score = [&](std::span<const std::int32_t> window) {
        const auto w = detail::compare_window(model, baseline, window, memory);
        sums.add(w.nll, window.size() - 1);
        baseline_sums.add(w.baseline_nll, window.size() - 1);
        total.kl_divergence += w.divergence;
        total.same_top += w.same;
    };
    detail::for_each_window(tokens, options, score, on_window);
    paired_result result{sums.result(), baseline_sums.result(), total};
    const auto scored = static_cast<double>(result.model.tokens);
    result.agreement.kl_divergence /= scored;
    result.agreement.same_top /= scored;
    result.model.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    result.baseline.seconds = result.model.seconds;
    return result;
}

}  // namespace gptq::model
