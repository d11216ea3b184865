// Perplexity as everyone reports it: windows without overlap, every token scored but the first of each window.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <vector>

#include <gptq/model/decoder.hpp>
#include <gptq/model/likelihood.hpp>

namespace gptq::model {

/// A window of a text.
struct window_score {
    double nll = 0.0;        ///< the sum of -log p over its scored tokens, in nats
    std::size_t tokens = 0;  ///< how many these are
};

/// What evaluate_perplexity measured.
struct perplexity_result {
    double perplexity = 0.0;  ///< e^nll
    double nll = 0.0;         ///< mean of -log p(token), in nats
    std::size_t tokens = 0;   ///< how many tokens were scored
    double seconds = 0.0;
    std::size_t windows = 0;
    /// Standard error of the perplexity, from how windows differ: perplexity times that of nll, a ratio of sums over W
    /// windows, sqrt(W / (W - 1) * sum((s - nll * n)^2)) / tokens, where a window's n scored tokens have a sum s. With
    /// windows of equal length this is their standard deviation over sqrt(W). Nothing for fewer than two windows.
    std::optional<double> standard_error = std::nullopt;
    std::vector<window_score> scores = {};  ///< of each window
};

/// How a model's distributions of the next token differ from those of another that it was made from.
struct agreement_result {
    double kl_divergence = 0.0;  ///< mean over the scored tokens of sum p log(p / q), p the other's, in nats
    double same_top = 0.0;       ///< part of the scored tokens for which both find the same token most likely
};

/// Both models' perplexities on one text, and how far they agree.
struct paired_result {
    perplexity_result model, baseline;  ///< `seconds` of each are those of both together
    agreement_result agreement;
};

struct perplexity_options {
    /// Tokens of a window. A last, shorter window counts if it has at least two tokens.
    std::size_t seqlen = 2048;
    /// Put before each window, for models that need it (see window_bos); the window's first token is then scored too.
    std::optional<std::int32_t> bos = std::nullopt;
};

namespace detail {

/// Nobody watches.
inline void ignore_window(std::size_t, std::size_t) {}

}  // namespace detail

/// The perplexity of `model` on a text. on_window(done, total) is called after each window; what it throws (cancelled,
/// for one) ends the evaluation. Throws shape_error where there is no token to score or one outside the vocabulary,
/// and non_finite_error where the model's output is not finite.
template <ModelBackend B>
perplexity_result evaluate_perplexity(
    const basic_decoder<B>& model, std::span<const std::int32_t> tokens, const perplexity_options& options = {},
    const std::function<void(std::size_t, std::size_t)>& on_window = detail::ignore_window);

/// The perplexities of a model and of the one it was made from on a text of both, and how far they agree. Memory beside
/// the models is that of one window. Throws shape_error for models of different vocabularies, and as
/// evaluate_perplexity.
template <ModelBackend B>
paired_result evaluate_pair(const basic_decoder<B>& model, const basic_decoder<B>& baseline,
                            std::span<const std::int32_t> tokens, const perplexity_options& options,
                            const std::function<void(std::size_t, std::size_t)>& on_window = detail::ignore_window);

}  // namespace gptq::model

#include <gptq/model/impl/perplexity.hpp>
