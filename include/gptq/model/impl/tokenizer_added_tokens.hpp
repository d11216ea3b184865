// The bodies of <gptq/model/tokenizer_added_tokens.hpp>.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include <gptq/compiled.hpp>
#include <gptq/model/tokenizer_added_tokens.hpp>
#include <gptq/model/tokenizer_json.hpp>
#include <gptq/model/tokenizer_prefix_tree.hpp>
#include <gptq/model/tokenizer_unicode.hpp>
#include <gptq/model/tokenizer_vocabulary.hpp>

namespace gptq::model {
namespace detail {

GPTQ_INLINE added_token parse_added_token(const json_node& node) {
    return {node["content"].text(),        node["id"].number(max_token_id), node["special"].flag(false),
            node["normalized"].flag(true), node["single_word"].flag(false), node["lstrip"].flag(false),
            node["rstrip"].flag(false)};
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

GPTQ_INLINE longest_finder added_tokens::finder_of(const string_map<std::int32_t>& texts) {
    std::vector<prefix_tree::entry> entries;
    for (const auto& [text, index] : texts)
        if (!text.empty()) entries.push_back({text, index});
    return longest_finder(entries);
}

GPTQ_INLINE std::size_t added_tokens::begin_of(const added_token& token, const longest_finder::found& match,
                                               std::string_view text, std::size_t done) {
    if (!token.lstrip) return match.begin;
    return match.begin <= done ? done : done + trailing_space(text.substr(done, match.begin - done));
}

GPTQ_INLINE std::size_t added_tokens::end_of(const added_token& token, const longest_finder::found& match,
                                             std::string_view text, std::size_t done) {
    if (!token.rstrip) return match.end;
    const std::size_t from = std::max(match.end, done);  // what is taken behind the match is white space
    return from + leading_space(text.substr(from));
}

}  // namespace detail
}  // namespace gptq::model
