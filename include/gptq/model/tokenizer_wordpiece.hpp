// Whole words, and the longest pieces of words: the models "WordLevel" and "WordPiece" of tokenizer.json.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <gptq/model/tokenizer_json.hpp>
#include <gptq/model/tokenizer_vocabulary.hpp>

namespace gptq::model::detail {

/// BERT's: a word is the longest piece that it begins with, then the longest that the rest begins with, and so on. A
/// word for which that fails is unknown as a whole. WordLevel is WordPiece without pieces.
class wordpiece_model {
 public:
    /// `only_words` makes it a WordLevel.
    wordpiece_model(const json_node& node, bool only_words);

    std::optional<std::int32_t> id_of(std::string_view token) const { return find_id(ids_, token); }

    template <class Visit>
    void for_each_token(Visit&& visit) const {
        for (const auto& [token, id] : ids_) visit(token, id);
    }

    /// Encodes words one after the other.
    class encoder {
     public:
        explicit encoder(const wordpiece_model& model) : model_(model) {}

        void encode(std::string_view word, std::vector<std::int32_t>& ids);

     private:
        /// The longest piece that `rest` begins with; its length in `length`.
        std::optional<std::int32_t> longest_piece(std::string_view rest, bool first, std::size_t& length);

        const wordpiece_model& model_;
        std::string buffer_;
    };

 private:
    std::int32_t unknown() const;

    token_ids ids_;
    std::string unknown_;
    std::string prefix_;           // of every piece of a word but the first
    std::size_t longest_ = 0;      // bytes of the longest token
    std::size_t most_characters_;  // of a word; longer ones are unknown
    bool only_words_;
};

}  // namespace gptq::model::detail

#ifndef GPTQ_COMPILED
#include <gptq/model/impl/tokenizer_wordpiece.hpp>
#endif
