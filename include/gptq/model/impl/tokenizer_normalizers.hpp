// The bodies of <gptq/model/tokenizer_normalizers.hpp>.
#pragma once

#include <array>
#include <cstddef>
#include <functional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <gptq/compiled.hpp>
#include <gptq/model/tokenizer_json.hpp>
#include <gptq/model/tokenizer_normalizers.hpp>
#include <gptq/model/tokenizer_regex.hpp>
#include <gptq/model/tokenizer_unicode.hpp>

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
    node.refuse("normalizer \"" + type + "\" is not supported");
}

GPTQ_INLINE std::string normalizer::operator()(std::string text) const {
    for (const auto& step : steps_) text = step(std::move(text));
    return text;
}

}  // namespace detail
}  // namespace gptq::model
