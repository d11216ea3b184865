// The bodies of <gptq/model/tokenizer_character_map.hpp>.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <gptq/compiled.hpp>
#include <gptq/error.hpp>
#include <gptq/model/tokenizer_character_map.hpp>
#include <gptq/model/tokenizer_json.hpp>
#include <gptq/model/tokenizer_regex.hpp>
#include <gptq/model/tokenizer_unicode.hpp>

namespace gptq::model {
namespace detail {

GPTQ_INLINE character_map::character_map(std::string_view bytes, const json_node& node) : where_(node.where()) {
    const auto unit_at = [&](std::size_t at) {
        std::uint32_t unit = 0;
        for (std::size_t i = 4; i-- > 0;) unit = unit << 8 | static_cast<unsigned char>(bytes[at + i]);
        return unit;
    };
    const std::size_t size = bytes.size() < 4 ? 0 : unit_at(0);
    if (size < 4 || size % 4 != 0 || size > bytes.size() - 4) {
        throw format_error(where_ + ": the table of characters has " + std::to_string(bytes.size()) +
                           " bytes, which is not what it says; download the tokenizer again");
    }
    units_.reserve(size / 4);
    for (std::size_t at = 4; at < 4 + size; at += 4) units_.push_back(unit_at(at));
    replacements_ = bytes.substr(4 + size);
}

template <class Visit>
void character_map::for_each_prefix(std::string_view text, const Visit& visit) const {
    const auto offset = [](std::uint32_t unit) { return std::size_t{unit >> 10} << ((unit >> 9 & 1) * 8); };
    std::size_t at = offset(units_[0]);
    for (std::size_t length = 1; length <= text.size(); ++length) {
        const auto byte = static_cast<unsigned char>(text[length - 1]);
        at ^= byte;
        if (byte == 0 || at >= units_.size()) return;
        const std::uint32_t unit = units_[at];
        if ((unit & 0x800000FF) != byte) return;
        at ^= offset(unit);
        if ((unit >> 8 & 1) == 0) continue;
        if (at >= units_.size()) return;
        if (!visit(length, units_[at] & 0x7FFFFFFF)) return;
    }
}

GPTQ_INLINE std::string_view character_map::replacement_at(std::uint32_t place) const {
    const std::string_view all = replacements_;
    const auto found = place < all.size() ? all.substr(place) : std::string_view();
    const auto text = found.substr(0, found.find('\0'));
    if (place >= all.size() || !is_valid_utf8(text)) {
        throw format_error(where_ + ": the table of characters has no replacement at byte " + std::to_string(place) +
                           "; download the tokenizer again");
    }
    return text;
}

GPTQ_INLINE bool character_map::append_replacement_of_shortest(std::string& out, std::string_view text) const {
    bool replaced = false;
    for_each_prefix(text, [&](std::size_t, std::uint32_t place) {
        out += replacement_at(place);
        replaced = true;
        return false;
    });
    return replaced;
}

GPTQ_INLINE void character_map::append_grapheme(std::string& out, std::string_view grapheme) const {
    if (grapheme.size() < 6 && append_replacement_of_shortest(out, grapheme)) return;
    for_each_character(grapheme, [&](char32_t, std::size_t begin, std::size_t length) {
        const auto character = grapheme.substr(begin, length);
        if (!append_replacement_of_shortest(out, character)) out += character;
    });
}

GPTQ_INLINE std::string character_map::replace_graphemes(std::string_view text) const {
    std::string out;
    out.reserve(text.size());
    for_each_grapheme(text, [&](std::string_view grapheme) {
        append_grapheme(out, grapheme);
        check_growth(out.size(), text.size());
    });
    return out;
}

GPTQ_INLINE std::string character_map::replace_longest(std::string_view text) const {
    std::string out;
    out.reserve(text.size());
    const std::size_t original = text.size();
    while (!text.empty()) {
        std::size_t length = 0;
        std::uint32_t place = 0;
        for_each_prefix(text, [&](std::size_t found_length, std::uint32_t found_place) {
            length = found_length;
            place = found_place;
            return true;
        });
        if (length > 0) {
            out += replacement_at(place);
            check_growth(out.size(), original);
        } else {
            length = decode_character(text, 0).length;
            out += text.substr(0, length);
        }
        text.remove_prefix(length);
    }
    return out;
}

GPTQ_INLINE std::optional<std::string> decode_base64(std::string_view text) {
    static constexpr std::string_view digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    if (text.size() % 4 != 0) return std::nullopt;
    const std::size_t padding = text.ends_with("==") ? 2 : text.ends_with('=') ? 1 : 0;
    std::string out;
    out.reserve(text.size() / 4 * 3);
    std::uint32_t bits = 0;
    unsigned count = 0;
    for (const char c : text.substr(0, text.size() - padding)) {
        const auto digit = digits.find(c);
        if (digit == std::string_view::npos) return std::nullopt;
        bits = bits << 6 | static_cast<std::uint32_t>(digit);
        count += 6;
        if (count < 8) continue;
        count -= 8;
        out += static_cast<char>(bits >> count & 0xFF);
    }
    return out;
}

}  // namespace detail
}  // namespace gptq::model
