// One step through a text that may or may not be UTF-8.
#pragma once

#include <cstddef>
#include <string_view>

namespace gptq::detail {

/// The character and its bytes, or, where the bytes are no character, how many of them to skip.
struct decoded_character {
    char32_t code;       ///< Meaningful if `valid`.
    std::size_t length;  ///< At least 1.
    bool valid;
};

/// The character at `pos` (< text.size()). Where there is none, the length is that of the longest start of one, as the
/// Unicode standard recommends (chapter 3, "U+FFFD Substitution of Maximal Subparts"), which others follow as well.
inline decoded_character decode_character(std::string_view text, std::size_t pos) {
    const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
    const unsigned lead = byte(pos);
    if (lead < 0x80) return {lead, 1, true};
    const std::size_t length = lead < 0xC2 ? 0 : lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : lead < 0xF5 ? 4 : 0;
    if (length == 0) return {0, 1, false};
    // The second byte's range is narrower after some leads: no overlong forms, no surrogates, nothing past U+10FFFF.
    const unsigned low = lead == 0xE0 ? 0xA0 : lead == 0xF0 ? 0x90 : 0x80;
    const unsigned high = lead == 0xED ? 0x9F : lead == 0xF4 ? 0x8F : 0xBF;
    char32_t code = lead & (0xFFU >> (length + 1));
    for (std::size_t i = 1; i < length; ++i) {
        if (pos + i >= text.size()) return {0, i, false};
        const unsigned next = byte(pos + i);
        if (next < (i == 1 ? low : 0x80) || next > (i == 1 ? high : 0xBF)) return {0, i, false};
        code = (code << 6) | (next & 0x3F);
    }
    return {code, length, true};
}

}  // namespace gptq::detail
