// Calibration text as the windows of tokens that a quantization works on.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <gptq/model/model_config.hpp>
#include <gptq/model/tokenizer.hpp>

namespace gptq::model {

/// The token that heads every window of text for this model, if one does: the beginning-of-text token of architectures
/// that make no sense of text without it (Gemma). Others read windows as they are cut, as their perplexities are
/// reported.
std::optional<std::int32_t> window_bos(const model_config& config, const tokenizer& tokens);

/// Where in a text the windows are.
enum class window_sampling {
    spread,  ///< evenly over the whole text
    first    ///< one after another from its beginning
};

/// What a tokenizer adds to a text.
enum class special_tokens {
    as_tokenizer,  ///< what it always adds: a beginning-of-text token at the head, once
    none
};

/// Token ids, one window of `length` tokens after another, and how they were taken from a text, where that is known.
struct token_windows {
    std::vector<std::int32_t> tokens;
    std::size_t length = 0;
    std::optional<window_sampling> sampling = std::nullopt;
    std::optional<special_tokens> special = std::nullopt;

    std::size_t count() const { return length == 0 ? 0 : tokens.size() / length; }
};

/// `count` windows of `length` tokens of a text without overlap, tokenized as `special` says; `bos`, if any, takes
/// the place of a token of the text at the head of each window. Only as much of the text is tokenized as is used:
/// `first` takes a prefix; `spread` the beginning of each of `count` equal parts, each on its own, or, where a part has
/// fewer than 16 bytes for each token wanted, evenly spaced runs of all tokens. Throws shape_error, saying how many
/// tokens there are and how many are needed, if the text is too short; `what` names it there.
token_windows calibration_windows(const tokenizer& tokens, std::string_view text, std::size_t count, std::size_t length,
                                  std::optional<std::int32_t> bos, const std::string& what = "calibration text",
                                  window_sampling sampling = window_sampling::spread,
                                  special_tokens special = special_tokens::as_tokenizer);

}  // namespace gptq::model

#ifndef GPTQ_COMPILED
#include <gptq/model/impl/calibration.hpp>
#endif
