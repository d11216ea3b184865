// The bodies of <gptq/model/tokenizer_wordpiece.hpp>.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <gptq/compiled.hpp>
#include <gptq/error.hpp>
#include <gptq/model/tokenizer_json.hpp>
#include <gptq/model/tokenizer_prefix_tree.hpp>
#include <gptq/model/tokenizer_unicode.hpp>
#include <gptq/model/tokenizer_vocabulary.hpp>
#include <gptq/model/tokenizer_wordpiece.hpp>
#include <gptq/quote.hpp>

namespace gptq::model {
namespace detail {

GPTQ_INLINE wordpiece_model::wordpiece_model(const json_node& node, bool only_words)
    : ids_(read_vocabulary(node["vocab"])),
      unknown_(node["unk_token"].optional_text().value_or(only_words ? "<unk>" : "[UNK]")),
      most_characters_(100),
      only_words_(only_words) {
    if (!only_words) {
        first_pieces_ = pieces_behind("", node["vocab"]);
        next_pieces_ = pieces_behind(read_mark(node["continuing_subword_prefix"], "##"), node["vocab"]);
    }
    const json_node most = node["max_input_chars_per_word"];
    if (!most.is_null()) {
        most_characters_ = static_cast<std::size_t>(most.number(std::numeric_limits<std::int32_t>::max()));
    }
}

GPTQ_INLINE prefix_tree wordpiece_model::pieces_behind(std::string_view prefix, const json_node& vocab) const {
    std::vector<prefix_tree::entry> entries;
    for (const auto& [token, id] : ids_) {
        if (token.size() > max_piece_bytes)
            vocab.fail("a token has more than " + std::to_string(max_piece_bytes) + " bytes");
        if (token.starts_with(prefix)) entries.push_back({std::string_view(token).substr(prefix.size()), id});
    }
    return prefix_tree(std::move(entries));
}

GPTQ_INLINE std::int32_t wordpiece_model::unknown() const {
    const auto id = id_of(unknown_);
    if (!id) {
        throw unsupported_error("the text has a word that the tokenizer does not know, and its unknown token " +
                                in_quotes(unknown_) + " is not in the vocabulary");
    }
    return *id;
}

GPTQ_INLINE void wordpiece_model::encoder::encode(std::string_view word, std::vector<std::int32_t>& ids) {
    if (model_.only_words_) {
        const auto id = model_.id_of(word);
        return ids.push_back(id ? *id : model_.unknown());
    }
    std::size_t characters = 0;
    for_each_character(word, [&](char32_t, std::size_t, std::size_t) { ++characters; });
    if (characters > model_.most_characters_) return ids.push_back(model_.unknown());
    const std::size_t before = ids.size();
    for (std::size_t begin = 0; begin < word.size();) {
        const auto piece = longest_piece(begin == 0 ? model_.first_pieces_ : model_.next_pieces_, word.substr(begin));
        if (!piece) {
            ids.resize(before);
            return ids.push_back(model_.unknown());
        }
        begin += piece->first;
        ids.push_back(piece->second);
    }
}

GPTQ_INLINE std::optional<std::pair<std::size_t, std::int32_t>> wordpiece_model::longest_piece(
    const prefix_tree& pieces, std::string_view rest) {
    std::optional<std::pair<std::size_t, std::int32_t>> longest;
    pieces.for_each_prefix(rest, [&](std::size_t length, std::int32_t id) { longest = {length, id}; });
    return longest;
}

}  // namespace detail
}  // namespace gptq::model
