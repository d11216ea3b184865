// Byte pair encoding as tokenizer.json's model of type "BPE" describes it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include <gptq/model/tokenizer_json.hpp>
#include <gptq/model/tokenizer_vocabulary.hpp>

namespace gptq::model::detail {

/// The vocabulary and its merges.
class bpe_model {
 public:
    explicit bpe_model(const json_node& node);

    std::optional<std::int32_t> id_of(std::string_view token) const { return find_id(vocabulary_, token); }

    /// Calls visit(token, id) for every token of the vocabulary.
    template <class Visit>
    void for_each_token(Visit&& visit) const {
        for (const auto& [token, id] : vocabulary_) visit(token, id);
    }

    /// Encodes words one after the other, and remembers what became of them. For one thread and one text.
    class encoder {
     public:
        explicit encoder(const bpe_model& model) : model_(model) {}

        /// Appends the ids of `word`, which is not empty. O(n log n) for n characters.
        void encode(std::string_view word, std::vector<std::int32_t>& ids);

     private:
        static constexpr std::size_t longest_remembered = 64;  // bytes; longer words hardly come twice
        static constexpr std::uint32_t none = std::numeric_limits<std::uint32_t>::max();

        /// A doubly linked list in an array. A symbol that was merged into the one before it has id -1.
        struct symbol {
            std::int32_t id;
            std::uint32_t previous;
            std::uint32_t next;
        };

        /// "The symbol at `position` and its successor can become `id`"; out of date if the two have changed since.
        struct candidate {
            std::uint32_t rank;
            std::uint32_t position;
            std::int32_t id;
            /// For std heap functions, which keep the largest in front: the lowest rank, then the leftmost pair.
            bool operator<(const candidate& other) const;
        };

        void encode_new(std::string_view word, std::vector<std::int32_t>& ids);

        void append(std::int32_t id);

        void split_into_symbols(std::string_view word);

        void propose(std::uint32_t position);

        bool current(const candidate& c) const;

        void merge_symbols();

        void push_proposal(std::uint32_t position);

        const bpe_model& model_;
        std::vector<symbol> symbols_;
        std::vector<candidate> candidates_;
        std::string buffer_;
        string_map<std::pair<std::size_t, std::size_t>> seen_;  // word -> first of its ids in remembered_, how many
        std::vector<std::int32_t> remembered_;
    };

 private:
    struct merge {
        std::uint32_t rank;
        std::int32_t id;
    };

    /// Spreads the two ids over the word; the map's own hash is the identity.
    struct pair_hash {
        std::size_t operator()(std::uint64_t key) const { return (key * 0x9E3779B97F4A7C15U) >> 20; }
    };

    static std::uint64_t pair_key(std::int32_t left, std::int32_t right);

    static void refuse_dropout(const json_node& dropout);

    /// "a b" in older files, ["a", "b"] in newer ones.
    static std::pair<std::string, std::string> parse_merge(const json_node& merge);

    /// `ranks` are the merges' places in the order, for merges of which some have the same; null where none have.
    void read_merges(const json_node& node, const json_node& ranks);

    /// The character as the vocabulary spells it at its place in a word; `buffer` holds it if it differs.
    std::string_view decorate(std::string_view character, bool first, bool last, std::string& buffer) const;

    bool knows_bytes_of(std::string_view token) const;

    token_ids vocabulary_;
    std::unordered_map<std::uint64_t, merge, pair_hash> merges_;  // pair of ids -> what it becomes
    byte_token_ids byte_tokens_;                                  // for byte_fallback_
    std::optional<std::int32_t> unknown_;
    std::string prefix_;  // of every symbol of a word but the first
    std::string suffix_;  // of the last symbol of a word
    bool byte_fallback_ = false;
    bool fuse_unknown_ = false;
    bool ignore_merges_ = false;  // a word that is a token stays whole
};

}  // namespace gptq::model::detail

#ifndef GPTQ_COMPILED
#include <gptq/model/impl/tokenizer_bpe.hpp>
#endif
