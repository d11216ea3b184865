// The most likely pieces of a word, as tokenizer.json's model of type "Unigram" describes them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <gptq/model/tokenizer_json.hpp>
#include <gptq/model/tokenizer_prefix_tree.hpp>
#include <gptq/model/tokenizer_vocabulary.hpp>

namespace gptq::model::detail {

/// Pieces and the logarithms of their probabilities. A piece whose score is null is never looked for in a text: the
/// control pieces of a SentencePiece file are such ones.
class unigram_model {
 public:
    explicit unigram_model(const json_node& node);

    std::optional<std::int32_t> id_of(std::string_view token) const { return find_id(ids_, token); }

    /// Calls visit(token, id); a token may have several ids, of which the last is the one that texts get.
    template <class Visit>
    void for_each_token(Visit&& visit) const {
        for (std::size_t id = 0; id < pieces_.size(); ++id) visit(pieces_[id].text, static_cast<std::int32_t>(id));
    }

    /// Encodes words one after the other, for one thread.
    class encoder {
     public:
        explicit encoder(const unigram_model& model) : model_(model) {}

        /// Appends the ids of `word`, the pieces whose scores have the largest sum.
        void encode(std::string_view word, std::vector<std::int32_t>& ids);

     private:
        /// The best way to the byte where a piece ends.
        struct path {
            double score;
            std::size_t begin;  // of its last piece
            std::int32_t id;    // of that piece; negative where no path ends
        };

        void find_paths(std::string_view word);

        /// Whether the path to `begin` and then this piece is the best one to `end` so far.
        bool extend(std::size_t begin, std::size_t end, double score, std::int32_t id);

        void append_unknown(std::string_view text, std::vector<std::int32_t>& ids) const;

        const unigram_model& model_;
        std::vector<path> paths_;        // by the byte at which they end
        std::vector<std::size_t> ends_;  // of the pieces of the best path, from the last to the first
    };

 private:
    struct piece {
        std::string text;
        double score;
    };

    /// All pieces, and those that texts are searched for.
    void read_pieces(const json_node& vocab);

    std::vector<piece> pieces_;  // by id
    token_ids ids_;
    std::optional<prefix_tree> tree_;
    byte_token_ids byte_tokens_;
    std::optional<std::int32_t> unknown_;
    double unknown_score_ = 0;
    bool byte_fallback_ = false;
};

}  // namespace gptq::model::detail

#ifndef GPTQ_COMPILED
#include <gptq/model/impl/tokenizer_unigram.hpp>
#endif
