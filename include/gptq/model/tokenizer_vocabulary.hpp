// What the vocabularies of all kinds of models in tokenizer.json have in common.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>

#include <gptq/model/tokenizer_json.hpp>

namespace gptq::model::detail {

/// Ids at or above this are refused: 16 times the largest vocabularies in use, and small enough to index by.
inline constexpr std::int32_t max_token_id = 1 << 22;

/// Longer pieces, where a text is searched for every one that begins at a place, and longer marks at the ends of
/// symbols are refused: those in use have a few dozen bytes, and a search costs as many steps.
inline constexpr std::size_t max_piece_bytes = 1024;

/// Lets maps with std::string keys be searched by std::string_view.
struct string_hash {
    using is_transparent = void;
    std::size_t operator()(std::string_view text) const { return std::hash<std::string_view>()(text); }
};

template <class Value>
using string_map = std::unordered_map<std::string, Value, string_hash, std::equal_to<>>;

/// The id of every token.
using token_ids = string_map<std::int32_t>;

/// A vocabulary that is an object of tokens and their ids.
token_ids read_vocabulary(const json_node& node);

/// What a model puts before or behind symbols; `otherwise` where the file has none.
std::string read_mark(const json_node& node, const char* otherwise);

std::optional<std::int32_t> find_id(const token_ids& ids, std::string_view token);

/// The ids of <0x00> to <0xFF>, tokens for bytes of characters that have no token.
using byte_token_ids = std::array<std::optional<std::int32_t>, 256>;

byte_token_ids find_byte_tokens(const token_ids& ids);

/// Whether every byte of `text` has a token.
bool knows_all_bytes(const byte_token_ids& bytes, std::string_view text);

}  // namespace gptq::model::detail

#ifndef GPTQ_COMPILED
#include <gptq/model/impl/tokenizer_vocabulary.hpp>
#endif
