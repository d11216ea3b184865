// The bodies of <gptq/model/tokenizer_properties.hpp>.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <memory>
#include <string>
#include <string_view>

#include <gptq/compiled.hpp>
#include <gptq/io/pcre2.hpp>
#include <gptq/model/tokenizer_properties.hpp>

namespace gptq::model {
namespace detail {

struct named_members {
    std::string_view name;
    const char* members;
};

template <std::size_t Count>
const char* find_members(const std::array<named_members, Count>& table, std::string_view name) {
    const auto found = std::find_if(table.begin(), table.end(), [&](const auto& entry) { return entry.name == name; });
    return found == table.end() ? nullptr : found->members;
}

GPTQ_INLINE const char* find_posix_members(std::string_view name) {
    static constexpr std::array<named_members, 14> table{{
        {"alnum", R"(\p{Alphabetic}\p{Nd})"},
        {"alpha", R"(\p{Alphabetic})"},
        {"ascii", R"(\x{0}-\x{7f})"},
        {"blank", R"(\x{9}\p{Zs})"},
        {"cntrl", R"(\p{Cc})"},
        {"digit", R"(\p{Nd})"},
        {"graph", R"(\p{L}\p{M}\p{N}\p{P}\p{S}\p{Cf}\p{Co})"},
        {"lower", R"(\p{Lowercase})"},
        {"print", R"(\p{L}\p{M}\p{N}\p{P}\p{S}\p{Cf}\p{Co}\p{Zs})"},
        {"punct", R"(\p{P}\p{S})"},
        {"space", class_members::space},
        {"upper", R"(\p{Uppercase})"},
        {"word", class_members::word_in_class},
        {"xdigit", class_members::hex},
    }};
    return find_members(table, name);
}

/// The abbreviation of a general category, which is all that PCRE2 knows.
inline const char* find_category(std::string_view name) {
    static constexpr std::array<named_members, 35> table{{
        {"letter", "L"},
        {"uppercaseletter", "Lu"},
        {"lowercaseletter", "Ll"},
        {"titlecaseletter", "Lt"},
        {"modifierletter", "Lm"},
        {"otherletter", "Lo"},
        {"mark", "M"},
        {"nonspacingmark", "Mn"},
        {"spacingmark", "Mc"},
        {"enclosingmark", "Me"},
        {"number", "N"},
        {"decimalnumber", "Nd"},
        {"letternumber", "Nl"},
        {"othernumber", "No"},
        {"punctuation", "P"},
        {"connectorpunctuation", "Pc"},
        {"dashpunctuation", "Pd"},
        {"openpunctuation", "Ps"},
        {"closepunctuation", "Pe"},
        {"initialpunctuation", "Pi"},
        {"finalpunctuation", "Pf"},
        {"otherpunctuation", "Po"},
        {"symbol", "S"},
        {"mathsymbol", "Sm"},
        {"currencysymbol", "Sc"},
        {"modifiersymbol", "Sk"},
        {"othersymbol", "So"},
        {"separator", "Z"},
        {"spaceseparator", "Zs"},
        {"lineseparator", "Zl"},
        {"paragraphseparator", "Zp"},
        {"other", "C"},
        {"control", "Cc"},
        {"format", "Cf"},
        {"privateuse", "Co"},
    }};
    return find_members(table, name);
}

/// Whether PCRE2 has a script of this name.
inline bool is_script(const std::string& name) {
    const std::string pattern = "\\p{sc:" + name + "}";
    int code = 0;
    PCRE2_SIZE offset = 0;
    const std::unique_ptr<pcre2_code, decltype(&pcre2_code_free)> compiled(
        pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern.data()), pattern.size(), PCRE2_UTF, &code, &offset, nullptr),
        &pcre2_code_free);
    return compiled != nullptr;
}

GPTQ_INLINE std::string members_of_property(const std::string& name) {
    if (name == "punct") return R"(\p{P})";
    if (name == "word") return class_members::word;
    if (const char* members = find_posix_members(name)) return members;
    if (const char* category = find_category(name)) return std::string("\\p{") + category + "}";
    // Without the prefix, PCRE2 from 10.40 on means Script_Extensions, to which the ideographic full stop belongs.
    return (is_script(name) ? "\\p{sc:" : "\\p{") + name + "}";
}

}  // namespace detail
}  // namespace gptq::model
