// Whole words, and the longest pieces of words: the models "WordLevel" and "WordPiece" of tokenizer.json.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <gptq/model/tokenizer_json.hpp>
#include <gptq/model/tokenizer_prefix_tree.hpp>
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
        const wordpiece_model& model_;
    };

 private:
    /// The pieces that begin with `prefix`, by what follows it.
    prefix_tree pieces_behind(std::string_view prefix, const json_node& vocab) const;

    /// The length of the longest piece that `rest`, which is not empty, begins with, and its id.
    static std::optional<std::pair<std::size_t, std::int32_t>> longest_piece(const prefix_tree& pieces,
                                                                             std::string_view rest);

    std::int32_t unknown() const;

    token_ids ids_;
    std::string unknown_;
    prefix_tree first_pieces_;     // of a word
    prefix_tree next_pieces_;      // without their prefix
    std::size_t most_characters_;  // of a word; longer ones are unknown
    bool only_words_;
};

}  // namespace gptq::model::detail

#ifndef GPTQ_COMPILED
#include <gptq/model/impl/tokenizer_wordpiece.hpp>
#endif
