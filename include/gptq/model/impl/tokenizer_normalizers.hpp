// The bodies of <gptq/model/tokenizer_normalizers.hpp>.
#pragma once

#include <array>
#include <cstddef>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <gptq/compiled.hpp>
#include <gptq/model/tokenizer_character_map.hpp>
#include <gptq/model/tokenizer_json.hpp>
#include <gptq/model/tokenizer_normalizers.hpp>
#include <gptq/model/tokenizer_regex.hpp>
#include <gptq/model/tokenizer_unicode.hpp>
#include <gptq/quote.hpp>

namespace gptq::model {
namespace detail {

GPTQ_INLINE const std::array<char32_t, 256>& byte_characters() {
    static const std::array<char32_t, 256> table = [] {
        std::array<char32_t, 256> out{};
        char32_t next = 0x100;
        for (char32_t byte = 0; byte < 256; ++byte) {
            const bool printable = (byte > 0x20 && byte < 0x7F) || (byte > 0xA0 && byte != 0xAD);
            out[byte] = printable ? byte : next++;
        }
        return out;
    }();
    return table;
}

GPTQ_INLINE void append_byte_characters(std::string& out, std::string_view text) {
    for (const char byte : text) append_character(out, byte_characters()[static_cast<unsigned char>(byte)]);
}

/// The text without white space at its left and right end, as asked.
inline std::string strip_spaces(std::string_view text, bool left, bool right) {
    std::size_t begin = text.size(), end = 0;
    for_each_character(text, [&](char32_t c, std::size_t at, std::size_t length) {
        if (is_space(c)) return;
        if (begin == text.size()) begin = at;
        end = at + length;
    });
    if (!left) begin = 0;
    if (!right) end = text.size();
    return std::string(begin < end ? text.substr(begin, end - begin) : std::string_view());
}

/// BERT's clean text: no control characters, and no white space but the space.
inline std::string clean_bert_text(std::string_view text) {
    std::string out;
    out.reserve(text.size());
    for_each_character(text, [&](char32_t c, std::size_t at, std::size_t length) {
        if (c == 0 || c == 0xFFFD || is_control(c)) return;
        out += is_space(c) ? " " : text.substr(at, length);
    });
    return out;
}

inline std::string put_ideographs_between_spaces(std::string_view text) {
    std::string out;
    out.reserve(text.size());
    for_each_character(text, [&](char32_t c, std::size_t at, std::size_t length) {
        const char* space = is_ideograph(c) ? " " : "";
        out.append(space).append(text.substr(at, length)).append(space);
    });
    return out;
}

inline std::string strip_bert_accents(std::string_view text) {
    return filter_characters(normalize_utf8(text, UTF8PROC_DECOMPOSE),
                             [](char32_t c) { return !is_nonspacing_mark(c); });
}

inline normalizer_step make_bert_normalizer(const json_node& node) {
    const bool lowercase = node["lowercase"].flag(true);
    return [clean = node["clean_text"].flag(true), ideographs = node["handle_chinese_chars"].flag(true),
            strip = node["strip_accents"].flag(lowercase), lowercase](std::string text) {
        if (clean) text = clean_bert_text(text);
        if (ideographs) text = put_ideographs_between_spaces(text);
        if (strip) text = strip_bert_accents(text);
        return lowercase ? to_lower(text) : text;
    };
}

/// Nmt: control characters vanish, and what looks like a space, or like nothing, becomes one.
inline std::string normalize_nmt(std::string_view text) {
    std::string out;
    out.reserve(text.size());
    for_each_character(text, [&](char32_t c, std::size_t at, std::size_t length) {
        const bool space = c == 0x09 || c == 0x0A || c == 0x0C || c == 0x0D || c == 0x1680 ||
                           (c >= 0x200B && c <= 0x200F) || c == 0x2028 || c == 0x2029 || c == 0x2581 || c == 0xFEFF ||
                           c == 0xFFFD;
        const bool control = (c >= 0x01 && c <= 0x1F) || c == 0x7F || c == 0x8F || c == 0x9F;
        if (space || !control) out += space ? " " : text.substr(at, length);
    });
    return out;
}

inline normalizer_step make_precompiled(const json_node& node) {
    const json_node table = node["precompiled_charsmap"];
    // A step is copied with its normalizer; the table is large and never changes.
    if (table.value().is_binary()) {  // SentencePiece's own, which no JSON text can hold
        const auto& raw = table.value().get_binary();
        return [map = std::make_shared<const character_map>(std::string(raw.begin(), raw.end()), table)](
                   std::string text) { return map->replace_longest(text); };
    }
    const auto bytes = decode_base64(table.text());
    if (!bytes) table.fail("expected Base64");
    return [map = std::make_shared<const character_map>(*bytes, table)](std::string text) {
        return map->replace_graphemes(text);
    };
}

GPTQ_INLINE normalizer_step make_normalizer_step(const json_node& node) {
    const std::string type = node["type"].text();
    const auto form = [](int options) -> normalizer_step {
        return [options](std::string text) { return normalize_utf8(text, static_cast<utf8proc_option_t>(options)); };
    };
    if (type == "NFC") return form(UTF8PROC_COMPOSE);
    if (type == "NFD") return form(UTF8PROC_DECOMPOSE);
    if (type == "NFKC") return form(UTF8PROC_COMPOSE | UTF8PROC_COMPAT);
    if (type == "NFKD") return form(UTF8PROC_DECOMPOSE | UTF8PROC_COMPAT);
    if (type == "Lowercase") return [](std::string text) { return to_lower(text); };
    if (type == "StripAccents") {
        return [](std::string text) { return filter_characters(text, [](char32_t c) { return !is_mark(c); }); };
    }
    if (type == "BertNormalizer") return make_bert_normalizer(node);
    if (type == "Nmt") return [](std::string text) { return normalize_nmt(text); };
    if (type == "Precompiled") return make_precompiled(node);
    if (type == "Strip") {
        return [left = node["strip_left"].flag(true), right = node["strip_right"].flag(true)](std::string text) {
            return strip_spaces(text, left, right);
        };
    }
    if (type == "Prepend") {
        return [prefix = node["prepend"].text()](std::string text) { return text.empty() ? text : prefix + text; };
    }
    if (type == "Replace") {
        return [from = pattern(node["pattern"]), to = node["content"].text()](std::string text) {
            return from.replace(text, to);
        };
    }
    if (type == "ByteLevel") {
        return [](std::string text) {
            std::string out;
            append_byte_characters(out, text);
            return out;
        };
    }
    node.refuse("normalizer " + in_quotes(type) + " is not supported");
}

GPTQ_INLINE std::string normalizer::operator()(std::string text) const {
    const std::size_t original = text.size();
    for (const auto& step : steps_) {
        text = step(std::move(text));
        check_growth(text.size(), original);
    }
    return text;
}

}  // namespace detail
}  // namespace gptq::model
