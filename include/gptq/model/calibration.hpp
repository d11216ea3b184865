// Calibration text as the windows of tokens that a quantization works on.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <gptq/error.hpp>
#include <gptq/model/model_config.hpp>
#include <gptq/model/tokenizer.hpp>

namespace gptq::model {

/// Token ids, one window of `length` tokens after another.
struct token_windows {
    std::vector<std::int32_t> tokens;
    std::size_t length = 0;

    std::size_t count() const { return length == 0 ? 0 : tokens.size() / length; }
};

/// The token that heads every window of text for this model, if one does: the beginning-of-text token of architectures
/// that make no sense of text without it (Gemma). Others read windows as they are cut, as their perplexities are
/// reported.
inline std::optional<std::int32_t> window_bos(const model_config& config, const tokenizer& tokens) {
    return config.arch.needs_bos ? tokens.bos_id() : std::nullopt;
}

/// The first `count` windows of `length` tokens of a text, which is tokenized in one go without added tokens and cut
/// without overlap; `bos`, if any, takes the place of a token of the text at the head of each window. Throws
/// shape_error, saying how many tokens there are and how many are needed, if the text is too short; `what` names it
/// there.
inline token_windows calibration_windows(const tokenizer& tokens, std::string_view text, std::size_t count,
                                         std::size_t length, std::optional<std::int32_t> bos,
                                         const std::string& what = "calibration text") {
    if (count == 0 || length < 2)
        throw shape_error(what + ": at least 1 window of at least 2 tokens is needed, not " + std::to_string(count) +
                          " of " + std::to_string(length));
    const std::size_t stride = length - (bos ? 1 : 0);
    const std::vector<std::int32_t> ids = tokens.encode(text);
    if (ids.size() / stride < count)
        throw shape_error(what + ": has " + std::to_string(ids.size()) + " tokens; " + std::to_string(count) +
                          " windows of " + std::to_string(stride) + " tokens need " + std::to_string(count * stride) +
                          "; give more text, or fewer or shorter windows");
    token_windows windows{{}, length};
    windows.tokens.reserve(count * length);
    for (std::size_t i = 0; i < count; ++i) {
        if (bos) windows.tokens.push_back(*bos);
        const auto first = ids.begin() + static_cast<std::ptrdiff_t>(i * stride);
        windows.tokens.insert(windows.tokens.end(), first, first + static_cast<std::ptrdiff_t>(stride));
    }
    return windows;
}

}  // namespace gptq::model
