// UTF-8 and the properties of characters that tokenizers ask for. The tables are utf8proc's: characters that Unicode
// has only taken in since are letters to a newer table and nothing to an older one, here as in every implementation.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

#include <utf8proc.h>

#include <gptq/utf8.hpp>

namespace gptq::model::detail {

/// U+FFFD, what stands for bytes that are not UTF-8.
inline constexpr std::string_view replacement_character = "\xEF\xBF\xBD";

using gptq::detail::decode_character;

/// Appends the UTF-8 of `code`.
void append_character(std::string& text, char32_t code);

/// Calls visit(code, begin, length) for every character of valid UTF-8.
template <class Visit>
void for_each_character(std::string_view text, Visit&& visit) {
    for (std::size_t pos = 0; pos < text.size();) {
        const auto character = decode_character(text, pos);
        visit(character.code, pos, character.length);
        pos += character.length;
    }
}

/// Calls visit(std::string_view) for every extended grapheme cluster of valid UTF-8.
template <class Visit>
void for_each_grapheme(std::string_view text, Visit&& visit) {
    std::size_t start = 0;
    utf8proc_int32_t previous = 0, state = 0;
    for_each_character(text, [&](char32_t c, std::size_t at, std::size_t) {
        const auto code = static_cast<utf8proc_int32_t>(c);
        if (at > 0 && utf8proc_grapheme_break_stateful(previous, code, &state)) {
            visit(text.substr(start, at - start));
            start = at;
        }
        previous = code;
    });
    if (start < text.size()) visit(text.substr(start));
}

/// The characters of valid UTF-8 for which keep(code) is true.
template <class Keep>
std::string filter_characters(std::string_view text, const Keep& keep) {
    std::string out;
    out.reserve(text.size());
    for_each_character(text, [&](char32_t c, std::size_t at, std::size_t length) {
        if (keep(c)) out += text.substr(at, length);
    });
    return out;
}

/// The text with every ill-formed sequence replaced by U+FFFD; valid UTF-8, NULs included, comes back unchanged.
std::string repair_utf8(std::string_view text);

bool is_valid_utf8(std::string_view text);

/// The property White_Space.
bool is_space(char32_t c);

/// General category N: decimal digits, letters used as numbers, and other numbers.
bool is_number(char32_t c);

/// General category M: marks of any kind.
bool is_mark(char32_t c);

/// General category Mn.
bool is_nonspacing_mark(char32_t c);

/// General category C without what Unicode has not assigned, and without tab, line feed and carriage return.
bool is_control(char32_t c);

/// The blocks of CJK ideographs that BERT puts between spaces.
bool is_ideograph(char32_t c);

/// General category P, and the ASCII symbols that C calls punctuation.
bool is_punctuation(char32_t c);

/// What `\w` means in Unicode Technical Standard 18: Alphabetic, M, Nd, Pc and Join_Control.
bool is_word_character(char32_t c);

/// Every character in lower case by its full mapping; the one that becomes two characters is U+0130.
std::string to_lower(std::string_view text);

/// A Unicode normalization form of valid UTF-8; `options` are utf8proc's (UTF8PROC_COMPOSE for NFC, and so on).
std::string normalize_utf8(std::string_view text, utf8proc_option_t options);

}  // namespace gptq::model::detail

#ifndef GPTQ_COMPILED
#include <gptq/model/impl/tokenizer_unicode.hpp>
#endif
