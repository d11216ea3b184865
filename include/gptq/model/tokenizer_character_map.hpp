// SentencePiece's table of replacements for characters, which tokenizer.json's normalizer "Precompiled" has in Base64.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <gptq/model/tokenizer_json.hpp>

namespace gptq::model::detail {

/// What strings of a few bytes are replaced by, found in a double array: a tree of bytes in which the index of a child
/// is its parent's offset exclusive-or the byte.
///
/// The bytes: the array's size in bytes, the array, both in little-endian 32-bit units, then the replacements, each
/// with a zero byte at its end. A unit has its own byte in bits 0 to 7, whether a string ends at it in bit 8, and the
/// offset of its children from bit 10 on, in steps of 256 if bit 9 is set. Where a string ends, the first of the
/// children holds where its replacement begins.
class character_map {
 public:
    /// `node` is where the bytes come from, for messages.
    character_map(std::string_view bytes, const json_node& node);

    /// The text as the `tokenizers` library replaces its parts: a grapheme of fewer than 6 bytes as a whole where the
    /// table has a string that it begins with, and every other character on its own. The shortest string counts.
    std::string replace_graphemes(std::string_view text) const;

    /// The text as SentencePiece replaces its parts: from left to right the longest string of the table.
    std::string replace_longest(std::string_view text) const;

 private:
    /// Calls visit(length, place of the replacement) for every string of the table that `text` begins with, the
    /// shortest first, until it returns false.
    template <class Visit>
    void for_each_prefix(std::string_view text, const Visit& visit) const;

    void append_grapheme(std::string& out, std::string_view grapheme) const;

    /// Appends what the shortest string is replaced by that `text` begins with; false where there is none.
    bool append_replacement_of_shortest(std::string& out, std::string_view text) const;

    std::string_view replacement_at(std::uint32_t place) const;

    std::vector<std::uint32_t> units_;
    std::string replacements_;
    std::string where_;
};

/// The bytes that standard Base64 with its padding stands for; nothing where the text is none.
std::optional<std::string> decode_base64(std::string_view text);

}  // namespace gptq::model::detail

#ifndef GPTQ_COMPILED
#include <gptq/model/impl/tokenizer_character_map.hpp>
#endif
