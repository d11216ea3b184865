// The sets of characters that regular expressions name, as members of PCRE2's character classes.
#pragma once

#include <string>
#include <string_view>

namespace gptq::model::detail {

namespace class_members {

/// What Oniguruma's `\s` is: White_Space, to which PCRE2's adds U+180E.
inline constexpr const char* space =
    R"(\x{9}-\x{d}\x{20}\x{85}\x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000})";

/// What Oniguruma's `\w` is within a class.
inline constexpr const char* word_in_class = R"(\p{Alphabetic}\p{M}\p{Nd}\p{Pc})";

/// What it is outside of one, where it has the superscripts and fractions of Latin-1 as well.
inline constexpr const char* word = R"(\p{Alphabetic}\p{M}\p{Nd}\p{Pc}\x{b2}\x{b3}\x{b9}\x{bc}-\x{be})";

inline constexpr const char* hex = "0-9A-Fa-f";

}  // namespace class_members

/// The members of Oniguruma's POSIX bracket `[:name:]`; null where there is none.
const char* find_posix_members(std::string_view name);

/// The members of Oniguruma's property `\p{name}`, of which `name` comes in lower case and without spaces, hyphens and
/// underscores. A name that nobody knows makes a class that PCRE2 refuses.
std::string members_of_property(const std::string& name);

}  // namespace gptq::model::detail

#ifndef GPTQ_COMPILED
#include <gptq/model/impl/tokenizer_properties.hpp>
#endif
