// The bodies of <gptq/model/tokenizer_decoders.hpp>.
#pragma once

#include <array>
#include <cstddef>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include <gptq/compiled.hpp>
#include <gptq/model/tokenizer_decoders.hpp>
#include <gptq/model/tokenizer_json.hpp>
#include <gptq/model/tokenizer_normalizers.hpp>
#include <gptq/model/tokenizer_pretokenizers.hpp>
#include <gptq/model/tokenizer_regex.hpp>
#include <gptq/model/tokenizer_unicode.hpp>
#include <gptq/quote.hpp>

namespace gptq::model {
namespace detail {

/// The bytes that the characters of a byte-level token stand for; a token with any other character is taken as it is.
inline void append_byte_level_token(std::string& bytes, const std::string& token) {
    static const std::unordered_map<char32_t, char> byte_of = [] {
        std::unordered_map<char32_t, char> out;
        for (std::size_t byte = 0; byte < 256; ++byte) out[byte_characters()[byte]] = static_cast<char>(byte);
        return out;
    }();
    const std::size_t before = bytes.size();
    bool known = true;
    for_each_character(token, [&](char32_t c, std::size_t, std::size_t) {
        const auto found = byte_of.find(c);
        known = known && found != byte_of.end();
        if (known) bytes += found->second;
    });
    if (!known) bytes.replace(before, std::string::npos, token);
}

inline token_list decode_byte_level(const token_list& tokens) {
    std::string bytes;
    for (const std::string& token : tokens) append_byte_level_token(bytes, token);
    return {repair_utf8(bytes)};
}

/// The byte of a token "<0x41>".
inline std::optional<char> parse_byte_token(std::string_view token) {
    if (token.size() != 6 || !token.starts_with("<0x") || token.back() != '>') return std::nullopt;
    const auto digit = [](char c) {
        return c >= '0' && c <= '9'   ? c - '0'
               : c >= 'A' && c <= 'F' ? c - 'A' + 10
               : c >= 'a' && c <= 'f' ? c - 'a' + 10
                                      : -1;
    };
    const int high = digit(token[3]), low = digit(token[4]);
    if (high < 0 || low < 0) return std::nullopt;
    return static_cast<char>(high * 16 + low);
}

/// Every run of byte tokens becomes the text that its bytes are, or one U+FFFD a byte if they are none.
inline token_list decode_byte_fallback(const token_list& tokens) {
    token_list out;
    std::string run;
    const auto flush = [&] {
        if (run.empty()) return;
        if (is_valid_utf8(run)) {
            out.push_back(run);
        } else {
            out.insert(out.end(), run.size(), std::string(replacement_character));
        }
        run.clear();
    };
    for (const std::string& token : tokens) {
        if (const auto byte = parse_byte_token(token)) {
            run += *byte;
        } else {
            flush();
            out.push_back(token);
        }
    }
    flush();
    return out;
}

inline token_list fuse_tokens(const token_list& tokens) {
    std::string text;
    for (const std::string& token : tokens) text += token;
    return {text};
}

/// Takes up to `start` times `content` from the start of a token and up to `stop` times from its end.
inline std::string strip_token(std::string_view token, std::string_view content, std::int32_t start,
                               std::int32_t stop) {
    for (; start > 0 && token.starts_with(content); --start) token.remove_prefix(content.size());
    for (; stop > 0 && token.ends_with(content); --stop) token.remove_suffix(content.size());
    return std::string(token);
}

/// Takes away the spaces before marks of punctuation and endings that cutting at them left.
inline std::string close_gaps(std::string text) {
    static constexpr std::array<std::pair<std::string_view, std::string_view>, 11> gaps{{
        {" .", "."},
        {" ?", "?"},
        {" !", "!"},
        {" ,", ","},
        {" ' ", "'"},
        {" n't", "n't"},
        {" 'm", "'m"},
        {" do not", " don't"},
        {" 's", "'s"},
        {" 've", "'ve"},
        {" 're", "'re"},
    }};
    for (const auto& [from, to] : gaps) text = pattern(std::string(from)).replace(text, to);
    return text;
}

/// WordPiece: a space before every token but the first and those with the prefix.
inline std::string decode_wordpiece(std::string token, std::size_t index, const std::string& prefix, bool close) {
    if (index > 0) token = token.starts_with(prefix) ? token.substr(prefix.size()) : " " + token;
    return close ? close_gaps(std::move(token)) : token;
}

GPTQ_INLINE decoder_step make_decoder_step(const json_node& node) {
    const std::string type = node["type"].text();
    const auto each = [](auto change) -> decoder_step {
        return [change](token_list tokens) {
            for (std::size_t i = 0; i < tokens.size(); ++i) tokens[i] = change(tokens[i], i);
            return tokens;
        };
    };
    if (type == "ByteLevel") return decode_byte_level;
    if (type == "ByteFallback") return decode_byte_fallback;
    if (type == "Fuse") return fuse_tokens;
    if (type == "WordPiece") {
        return each([prefix = node["prefix"].optional_text().value_or("##"), close = node["cleanup"].flag(true)](
                        const std::string& token, std::size_t i) { return decode_wordpiece(token, i, prefix, close); });
    }
    if (type == "BPEDecoder") {
        const pattern suffix(node["suffix"].optional_text().value_or("</w>"));
        return [suffix](token_list tokens) {
            for (std::size_t i = 0; i < tokens.size(); ++i) {
                tokens[i] = suffix.replace(tokens[i], i + 1 == tokens.size() ? "" : " ");
            }
            return tokens;
        };
    }
    if (type == "Replace") {
        return each([from = pattern(node["pattern"]), to = node["content"].text()](
                        const std::string& token, std::size_t) { return from.replace(token, to); });
    }
    if (type == "Strip") {
        constexpr std::int32_t most = 1 << 30;
        const std::string content = node["content"].text();
        if (content.empty()) node["content"].fail("expected a character");
        return each([content, start = node["start"].number(most), stop = node["stop"].number(most)](
                        const std::string& token, std::size_t) { return strip_token(token, content, start, stop); });
    }
    if (type == "Metaspace") {
        const bool prepended = parse_prepend_scheme(node) != prepend_scheme::never;
        return each([mark = pattern(node["replacement"].text()), prepended](const std::string& token, std::size_t i) {
            return mark.replace(token, i == 0 && prepended ? "" : " ");
        });
    }
    node.refuse("decoder " + in_quotes(type) + " is not supported");
}

GPTQ_INLINE std::string token_decoder::operator()(token_list tokens) const {
    if (steps_.empty()) return join_by_spaces(tokens);
    for (const auto& step : steps_) tokens = step(std::move(tokens));
    return fuse_tokens(tokens).front();
}

GPTQ_INLINE std::string token_decoder::join_by_spaces(const token_list& tokens) {
    std::string text;
    for (std::size_t i = 0; i < tokens.size(); ++i) text += (i == 0 ? "" : " ") + tokens[i];
    return text;
}

}  // namespace detail
}  // namespace gptq::model
