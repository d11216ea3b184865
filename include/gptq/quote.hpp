// Texts from files and users in messages: short, and without anything that a terminal acts on.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

#include <gptq/utf8.hpp>

namespace gptq {

/// A text that is quoted in a message is cut to so many bytes.
inline constexpr std::size_t max_quoted_bytes = 200;

namespace detail {

/// Of more than `most` bytes the beginning and the end, with dots between them; `most` bytes at most. UTF-8 stays
/// UTF-8.
inline std::string cut_middle(std::string_view text, std::size_t most) {
    if (text.size() <= most) return std::string(text);
    const auto inside = [&](std::size_t at) {
        return at < text.size() && (static_cast<unsigned char>(text[at]) & 0xC0) == 0x80;
    };
    std::size_t head = most - most / 4 - 3, tail = text.size() - most / 4;
    while (head > 0 && inside(head)) --head;
    while (inside(tail)) ++tail;
    return std::string(text.substr(0, head)) + "..." + std::string(text.substr(tail));
}

/// Control characters, and those that end a line or turn the direction of writing.
inline bool acts_on_terminal(char32_t c) {
    return c < 0x20 || (c >= 0x7F && c < 0xA0) || c == 0x61C || c == 0x200E || c == 0x200F ||
           (c >= 0x2028 && c <= 0x202E) || (c >= 0x2066 && c <= 0x2069);
}

/// "\x1b" or "\u202e".
inline std::string escape_of(char32_t code) {
    std::string digits;
    for (int shift = code < 0x100 ? 4 : 12; shift >= 0; shift -= 4) digits += "0123456789abcdef"[code >> shift & 0xF];
    return (code < 0x100 ? "\\x" : "\\u") + digits;
}

}  // namespace detail

/// The text for a message, at most `most` (>= 20) bytes of UTF-8: characters that a terminal acts on, and bytes that
/// are no UTF-8, become escapes such as "\x1b", and of a longer text the beginning and the end are left.
inline std::string printable(std::string_view text, std::size_t most = max_quoted_bytes) {
    const std::string part = detail::cut_middle(text, most);
    std::string out;
    for (std::size_t at = 0; at < part.size();) {
        const auto [code, length, valid] = detail::decode_character(part, at);
        if (valid && !detail::acts_on_terminal(code))
            out.append(part, at, length);
        else if (valid)
            out += detail::escape_of(code);
        else
            for (std::size_t i = 0; i < length; ++i) out += detail::escape_of(static_cast<unsigned char>(part[at + i]));
        at += length;
    }
    return detail::cut_middle(out, most);
}

/// A text from a file or a user in a message: printable, in quotation marks.
inline std::string in_quotes(std::string_view text) { return '"' + printable(text) + '"'; }

}  // namespace gptq
