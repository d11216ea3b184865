// Perplexity as everyone reports it: windows without overlap, every token scored but the first of each window.
#pragma once

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include <gptq/error.hpp>
#include <gptq/matrix_view.hpp>
#include <gptq/model/buffers.hpp>
#include <gptq/model/decoder.hpp>
#include <gptq/model/elementwise.hpp>

namespace gptq::model {

/// What evaluate_perplexity measured.
struct perplexity_result {
    double perplexity = 0.0;  ///< e^nll
    double nll = 0.0;         ///< mean of -log p(token), in nats
    std::size_t tokens = 0;   ///< how many tokens were scored
    double seconds = 0.0;
};

struct perplexity_options {
    /// Tokens of a window. A last, shorter window counts if it has at least two tokens.
    std::size_t seqlen = 2048;
    /// Put before each window, for models that need it (see window_bos); the window's first token is then scored too.
    std::optional<std::int32_t> bos = std::nullopt;
};

/// -log softmax(logits)[target], in double.
inline double negative_log_likelihood(std::span<const float> logits, std::size_t target) {
    const float top = largest(logits);
    double sum = 0.0;
    for (const float x : logits) sum += static_cast<double>(exp_nonpositive(x - top));
    return std::log(sum) + static_cast<double>(top) - static_cast<double>(logits[target]);
}

namespace detail {

/// Logits held at a time, in numbers: 32 MB.
inline constexpr std::size_t logits_held = std::size_t{1} << 23;

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

/// The perplexity of `model` on a text. on_window(done, total) is called after each window; what it throws (cancelled,
/// for one) ends the evaluation. Throws shape_error where there is no token to score or one outside the vocabulary,
/// and non_finite_error where the model's output is not finite.
template <class OnWindow>
perplexity_result evaluate_perplexity(const decoder& model, std::span<const std::int32_t> tokens,
                                      const perplexity_options& options, OnWindow&& on_window) {
    if (options.seqlen < 2) throw shape_error("windows of fewer than two tokens have nothing to score");
    if (tokens.size() < 2)
        throw shape_error("the text has " + std::to_string(tokens.size()) + " tokens; at least two are needed");
    const auto start = std::chrono::steady_clock::now();
    // A single token left over at the end is not a window.
    const std::size_t windows = (tokens.size() + options.seqlen - 2) / options.seqlen;
    perplexity_result result;
    double sum = 0.0;
    scratch_matrix memory;
    std::vector<std::int32_t> window;
    for (std::size_t w = 0; w < windows; ++w) {
        const std::size_t first = w * options.seqlen;
        const auto part = tokens.subspan(first, std::min(options.seqlen, tokens.size() - first));
        window.clear();
        if (options.bos) window.push_back(*options.bos);
        window.insert(window.end(), part.begin(), part.end());
        sum += detail::window_nll(model, window, memory);
        if (!std::isfinite(sum))
            throw non_finite_error("the model's output is not finite in window " + std::to_string(w) + " of the text");
        result.tokens += window.size() - 1;
        on_window(w + 1, windows);
    }
    result.nll = sum / static_cast<double>(result.tokens);
    result.perplexity = std::exp(result.nll);
    result.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    return result;
}

/// The same without anybody watching.
inline perplexity_result evaluate_perplexity(const decoder& model, std::span<const std::int32_t> tokens,
                                             const perplexity_options& options = {}) {
    return evaluate_perplexity(model, tokens, options, [](std::size_t, std::size_t) {});
}

}  // namespace gptq::model
