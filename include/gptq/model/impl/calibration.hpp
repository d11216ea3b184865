// The bodies of <gptq/model/calibration.hpp>.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <gptq/checked_size.hpp>
#include <gptq/compiled.hpp>
#include <gptq/error.hpp>
#include <gptq/model/calibration.hpp>
#include <gptq/model/model_config.hpp>
#include <gptq/model/tokenizer.hpp>

namespace gptq::model {

GPTQ_INLINE std::optional<std::int32_t> window_bos(const model_config& config, const tokenizer& tokens) {
    return config.arch.needs_bos ? tokens.bos_id() : std::nullopt;
}

namespace detail {

/// Tokens at the end of a piece of text that differ if the text goes on, amply.
constexpr std::size_t unsure_tokens = 16;

/// The first position from `from` on, at most `to`, that is just before a line's end or a space.
inline std::size_t boundary_from(std::string_view text, std::size_t from, std::size_t to) {
    return from >= to ? to : std::min(text.find_first_of("\n ", from), to);
}

/// The tokens of a text, or of a part of one from its beginning.
inline std::vector<std::int32_t> encode_head(const tokenizer& tokens, std::string_view text, special_tokens special) {
    return special == special_tokens::as_tokenizer ? tokens.encode_whole(text) : tokens.encode(text);
}

/// At least `count` tokens of text[begin, end), of no more of it than needed; all of its tokens if it has fewer.
inline std::vector<std::int32_t> encode_prefix(const tokenizer& tokens, std::string_view text, std::size_t begin,
                                               std::size_t end, std::size_t count, special_tokens special) {
    // A token is a byte at least, so that more tokens than bytes need all of the text.
    for (std::size_t bytes = 6 * (std::min(count, text.size()) + unsure_tokens);; bytes *= 2) {
        const std::size_t cut = bytes < end - begin ? boundary_from(text, begin + bytes, end) : end;
        const std::string_view part = text.substr(begin, cut - begin);
        std::vector<std::int32_t> ids = begin == 0 ? encode_head(tokens, part, special) : tokens.encode(part);
        if (cut == end || ids.size() >= count + unsure_tokens) return ids;
    }
}

/// `count` runs of `stride` tokens, one from the beginning of each of as many equal parts of the text; nothing if a
/// part has too few tokens.
inline std::vector<std::int32_t> spread_pieces(const tokenizer& tokens, std::string_view text, std::size_t count,
                                               std::size_t stride, special_tokens special) {
    std::vector<std::int32_t> chosen;
    const std::size_t part = text.size() / count;
    if (part / 16 < stride) return chosen;
    for (std::size_t i = 0; i < count; ++i) {
        const std::size_t end = i + 1 == count ? text.size() : boundary_from(text, (i + 1) * part, text.size());
        const std::size_t begin = i == 0 ? 0 : boundary_from(text, i * part, end);
        std::vector<std::int32_t> ids = encode_prefix(tokens, text, begin, end, stride, special);
        if (ids.size() < stride) return {};
        chosen.insert(chosen.end(), ids.begin(), ids.begin() + static_cast<std::ptrdiff_t>(stride));
    }
    return chosen;
}

/// `count` runs of `stride` of all tokens of a text, evenly spaced, the first at its beginning and the last at its end.
inline std::vector<std::int32_t> spread_tokens(const std::vector<std::int32_t>& ids, std::size_t count,
                                               std::size_t stride) {
    std::vector<std::int32_t> chosen;
    for (std::size_t i = 0; i < count; ++i) {
        const std::size_t begin = count == 1 ? 0 : (ids.size() - stride) * i / (count - 1);
        const auto first = ids.begin() + static_cast<std::ptrdiff_t>(begin);
        chosen.insert(chosen.end(), first, first + static_cast<std::ptrdiff_t>(stride));
    }
    return chosen;
}

}  // namespace detail

GPTQ_INLINE token_windows calibration_windows(const tokenizer& tokens, std::string_view text, std::size_t count,
                                              std::size_t length, std::optional<std::int32_t> bos,
                                              const std::string& what, window_sampling sampling,
                                              special_tokens special) {
    if (count == 0 || length < 2)
        throw shape_error(what + ": at least 1 window of at least 2 tokens is needed, not " + std::to_string(count) +
                          " of " + std::to_string(length));
    const std::size_t stride = length - (bos ? 1 : 0);
    if (bos) special = special_tokens::none;  // each window has its own
    const bool spread = sampling == window_sampling::spread;
    const std::size_t wanted = checked_multiply(count, stride, "tokens of the calibration windows");
    std::vector<std::int32_t> ids;
    if (spread) ids = detail::spread_pieces(tokens, text, count, stride, special);
    if (ids.empty()) {
        ids = spread ? detail::encode_head(tokens, text, special)
                     : detail::encode_prefix(tokens, text, 0, text.size(), wanted, special);
        if (ids.size() / stride < count)
            throw shape_error(what + ": has " + std::to_string(ids.size()) + " tokens; " + std::to_string(count) +
                              " windows of " + std::to_string(stride) + " tokens need " + std::to_string(wanted) +
                              "; give more text, or fewer or shorter windows");
        if (spread) ids = detail::spread_tokens(ids, count, stride);
    }
    token_windows windows{{}, length, sampling, special};
    windows.tokens.reserve(count * length);
    for (std::size_t i = 0; i < count; ++i) {
        if (bos) windows.tokens.push_back(*bos);
        const auto first = ids.begin() + static_cast<std::ptrdiff_t>(i * stride);
        windows.tokens.insert(windows.tokens.end(), first, first + static_cast<std::ptrdiff_t>(stride));
    }
    return windows;
}

}  // namespace gptq::model
