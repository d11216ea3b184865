// The bodies of <gptq/model/tokenizer_added_tokens.hpp>.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <gptq/compiled.hpp>
#include <gptq/model/tokenizer_added_tokens.hpp>
#include <gptq/model/tokenizer_json.hpp>
#include <gptq/model/tokenizer_unicode.hpp>
#include <gptq/model/tokenizer_vocabulary.hpp>

namespace gptq::model {
namespace detail {

GPTQ_INLINE added_token parse_added_token(const json_node& node) {
    return {node["content"].text(),        node["id"].number(max_token_id), node["special"].flag(false),
            node["normalized"].flag(true), node["single_word"].flag(false), node["lstrip"].flag(false),
            node["rstrip"].flag(false)};
}

GPTQ_INLINE void literal_set::insert(const std::string& text, std::size_t value) {
    if (text.empty() || !values_.emplace(text, value).second) return;
    auto& lengths = lengths_[static_cast<unsigned char>(text.front())];
    const auto place = std::lower_bound(lengths.begin(), lengths.end(), text.size(), std::greater<>());
    if (place == lengths.end() || *place != text.size()) lengths.insert(place, text.size());
}

GPTQ_INLINE std::optional<literal_set::found> literal_set::find(std::string_view text, std::size_t from) const {
    if (values_.empty()) return std::nullopt;
    for (std::size_t begin = from; begin < text.size(); ++begin) {
        for (const std::size_t length : lengths_[static_cast<unsigned char>(text[begin])]) {
            if (length > text.size() - begin) continue;
            const auto match = values_.find(text.substr(begin, length));
            if (match != values_.end()) return found{begin, begin + length, match->second};
        }
    }
    return std::nullopt;
}

GPTQ_INLINE bool starts_with_word_character(std::string_view text) {
    return !text.empty() && is_word_character(decode_character(text, 0).code);
}

/// Where the last character of `text` begins; text is not empty.
inline std::size_t last_character(std::string_view text) {
    std::size_t at = text.size() - 1;
    while (at > 0 && (static_cast<unsigned char>(text[at]) & 0xC0) == 0x80) --at;
    return at;
}

GPTQ_INLINE bool ends_with_word_character(std::string_view text) {
    return !text.empty() && starts_with_word_character(text.substr(last_character(text)));
}

GPTQ_INLINE std::size_t leading_space(std::string_view text) {
    std::size_t end = 0;
    while (end < text.size()) {
        const auto character = decode_character(text, end);
        if (!is_space(character.code)) break;
        end += character.length;
    }
    return end;
}

GPTQ_INLINE std::size_t trailing_space(std::string_view text) {
    std::size_t begin = text.size();
    while (begin > 0) {
        const std::size_t at = last_character(text.substr(0, begin));
        if (!is_space(decode_character(text, at).code)) break;
        begin = at;
    }
    return begin;
}

}  // namespace detail
}  // namespace gptq::model
