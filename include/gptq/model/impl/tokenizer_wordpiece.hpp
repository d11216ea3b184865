// The bodies of <gptq/model/tokenizer_wordpiece.hpp>.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <gptq/compiled.hpp>
#include <gptq/error.hpp>
#include <gptq/model/tokenizer_json.hpp>
#include <gptq/model/tokenizer_unicode.hpp>
#include <gptq/model/tokenizer_vocabulary.hpp>
#include <gptq/model/tokenizer_wordpiece.hpp>
#include <gptq/quote.hpp>

namespace gptq::model {
namespace detail {

GPTQ_INLINE wordpiece_model::wordpiece_model(const json_node& node, bool only_words)
    : ids_(read_vocabulary(node["vocab"])),
      unknown_(node["unk_token"].optional_text().value_or(only_words ? "<unk>" : "[UNK]")),
      prefix_(node["continuing_subword_prefix"].optional_text().value_or("##")),
      most_characters_(100),
      only_words_(only_words) {
    const json_node most = node["max_input_chars_per_word"];
    if (!most.is_null()) {
        most_characters_ = static_cast<std::size_t>(most.number(std::numeric_limits<std::int32_t>::max()));
    }
    for (const auto& [token, id] : ids_) longest_ = std::max(longest_, token.size());
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
    for (std::size_t begin = 0, length = 0; begin < word.size(); begin += length) {
        const auto id = longest_piece(word.substr(begin), begin == 0, length);
        if (!id) {
            ids.resize(before);
            return ids.push_back(model_.unknown());
        }
        ids.push_back(*id);
    }
}

GPTQ_INLINE std::optional<std::int32_t> wordpiece_model::encoder::longest_piece(std::string_view rest, bool first,
                                                                                std::size_t& length) {
    buffer_ = first ? "" : model_.prefix_;
    const std::size_t decoration = buffer_.size();
    buffer_ += rest.substr(0, model_.longest_);
    for (; buffer_.size() > decoration; buffer_.pop_back()) {
        length = buffer_.size() - decoration;
        if (const auto id = model_.id_of(buffer_)) return id;
    }
    return std::nullopt;
}

}  // namespace detail
}  // namespace gptq::model
