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
#include <utility>
#include <vector>

#include <gptq/error.hpp>
#include <gptq/matrix_view.hpp>
#include <gptq/model/buffers.hpp>
#include <gptq/model/decoder.hpp>
#include <gptq/model/likelihood.hpp>
#include <gptq/model/perplexity.hpp>

namespace gptq::model {
namespace detail {

/// Logits held at a time, in numbers: 32 MB.
inline constexpr std::size_t logits_held = std::size_t{1} << 23;

/// The sums that a perplexity and its error are made of.
class nll_sums {
 public:
    /// A window of `count` scored tokens whose -log p sum up to `sum`. Throws non_finite_error where that is not
    /// finite.
    void add(double sum, std::size_t count) {
        if (!std::isfinite(sum))
            throw non_finite_error("the model's output is not finite in window " + std::to_string(scores_.size()) +
                                   " of the text");
        scores_.push_back({sum, count});
    }

    perplexity_result result() const {
        perplexity_result result{.windows = scores_.size(), .scores = scores_};
        double sum = 0.0, squares = 0.0;
        for (const window_score& w : scores_) sum += w.nll, result.tokens += w.tokens;
        const auto tokens = static_cast<double>(result.tokens);
        result.nll = sum / tokens;
        result.perplexity = std::exp(result.nll);
        if (scores_.size() < 2) return result;
        for (const window_score& w : scores_)
            squares += std::pow(w.nll - result.nll * static_cast<double>(w.tokens), 2.0);
        const auto windows = static_cast<double>(scores_.size());
        result.standard_error = result.perplexity * std::sqrt(windows / (windows - 1.0) * squares) / tokens;
        return result;
    }

 private:
    std::vector<window_score> scores_;
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

/// Calls f(first, count) for runs of the tokens of a window that have a successor to score, as many as there is room
/// for logits of.
template <class F>
void for_scored_tokens(const model_config& config, std::size_t window, F&& f) {
    const std::size_t chunk = std::max<std::size_t>(1, logits_held / config.vocab_size);
    for (std::size_t first = 0; first + 1 < window; first += chunk) f(first, std::min(chunk, window - 1 - first));
}

/// The logits of some tokens of a text, one text after the other.
template <ModelBackend B>
class token_logits {
 public:
    explicit token_logits(const basic_decoder<B>& model) : model_(model) {}

    void read(std::span<const std::int32_t> text) { states_ = model_.head_states(text); }

    /// Of tokens [first, first + count), in the backend's memory until the next call.            [count, vocab_size]
    matrix_view<const float> operator()(std::size_t first, std::size_t count) {
        const auto logits = memory_.shaped(model_.backend(), count, model_.config().vocab_size);
        const auto all = std::as_const(states_).view();
        model_.head(all.block(first, count, 0, all.cols), logits);
        return logits;
    }

 private:
    const basic_decoder<B>& model_;
    room_of<B, typename B::activation> states_;
    room_for_one<B, float> memory_;
};

/// The sum of -log p over all tokens of a window but the first.
template <ModelBackend B>
double window_nll(const basic_decoder<B>& model, std::span<const std::int32_t> window, token_logits<B>& logits) {
    logits.read(window);
    double sum = 0.0;
    for_scored_tokens(model.config(), window.size(), [&](std::size_t first, std::size_t count) {
        for (const double nll :
             model.backend().negative_log_likelihoods(logits(first, count), window.subspan(first + 1, count)))
            sum += nll;
    });
    return sum;
}

}  // namespace detail
template <ModelBackend B>
perplexity_result evaluate_perplexity(const basic_decoder<B>& model, std::span<const std::int32_t> tokens,
                                      const perplexity_options& options,
                                      const std::function<void(std::size_t, std::size_t)>& on_window) {
    const auto start = std::chrono::steady_clock::now();
    detail::nll_sums sums;
    detail::token_logits<B> logits(model);
    const auto score = [&](std::span<const std::int32_t> window) {
        sums.add(detail::window_nll(model, window, logits), window.size() - 1);
    };
    detail::for_each_window(tokens, options, score, on_window);
    perplexity_result result = sums.result();
    result.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    return result;
}

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

template <ModelBackend B>
matrix<float> on_host(const B& backend, matrix_view<const float> logits) {
    matrix<float> copy(logits.rows, logits.cols);
    backend.read(logits, copy.view());
    return copy;
}

template <ModelBackend B>
paired_sums compare_window(const basic_decoder<B>& model, std::span<const std::int32_t> window, token_logits<B>& logits,
                           token_logits<B>& baseline) {
    logits.read(window);
    baseline.read(window);
    paired_sums sums;
    for_scored_tokens(model.config(), window.size(), [&](std::size_t first, std::size_t count) {
        const matrix<float> ours = on_host(model.backend(), logits(first, count));
        const matrix<float> theirs = on_host(model.backend(), baseline(first, count));
        for (std::size_t t = 0; t < count; ++t)
            sums.add(ours.view().row(t), theirs.view().row(t), static_cast<std::size_t>(window[first + t + 1]));
    });
    return sums;
}

}  // namespace detail
template <ModelBackend B>
paired_result evaluate_pair(const basic_decoder<B>& model, const basic_decoder<B>& baseline,
                            std::span<const std::int32_t> tokens, const perplexity_options& options,
                            const std::function<void(std::size_t, std::size_t)>& on_window) {
    if (model.config().vocab_size != baseline.config().vocab_size)
        throw shape_error("the model has a vocabulary of " + std::to_string(model.config().vocab_size) +
                          " tokens, the baseline one of " + std::to_string(baseline.config().vocab_size) +
                          "; compare it with the model that it was made from");
    const auto start = std::chrono::steady_clock::now();
    detail::nll_sums sums, baseline_sums;
    detail::token_logits<B> logits(model), baseline_logits(baseline);
    agreement_result total;
    const auto score = [&](std::span<const std::int32_t> window) {
        const auto w = detail::compare_window(model, window, logits, baseline_logits);
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

#ifdef GPTQ_COMPILED
#define GPTQ_EVALUATIONS(what)                                                                        \
    what perplexity_result evaluate_perplexity(const decoder&, std::span<const std::int32_t>,         \
                                               const perplexity_options&,                             \
                                               const std::function<void(std::size_t, std::size_t)>&); \
    what paired_result evaluate_pair(const decoder&, const decoder&, std::span<const std::int32_t>,   \
                                     const perplexity_options&, const std::function<void(std::size_t, std::size_t)>&);
GPTQ_EVALUATIONS(extern template)
#endif

}  // namespace gptq::model
