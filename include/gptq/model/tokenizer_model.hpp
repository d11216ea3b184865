// The model of tokenizer.json, of any kind: what the tokens of a word are.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include <gptq/model/tokenizer_bpe.hpp>
#include <gptq/model/tokenizer_json.hpp>
#include <gptq/model/tokenizer_unigram.hpp>
#include <gptq/model/tokenizer_wordpiece.hpp>

namespace gptq::model::detail {

/// A model of any kind.
class token_model {
 public:
    explicit token_model(const json_node& node) : kind_(make(node)) {}

    std::optional<std::int32_t> id_of(std::string_view token) const;

    /// Calls visit(token, id) for every token of the vocabulary.
    template <class Visit>
    void for_each_token(Visit&& visit) const {
        std::visit([&](const auto& model) { model.for_each_token(visit); }, kind_);
    }

    /// Encodes words one after the other; for one thread and one text.
    class encoder {
     public:
        explicit encoder(const token_model& model) : kind_(make(model)) {}

        /// Appends the ids of `word`, which is not empty.
        void encode(std::string_view word, std::vector<std::int32_t>& ids);

     private:
        using kind = std::variant<bpe_model::encoder, unigram_model::encoder, wordpiece_model::encoder>;

        static kind make(const token_model& model);

        kind kind_;
    };

 private:
    using kind = std::variant<bpe_model, unigram_model, wordpiece_model>;

    static kind make(const json_node& node);

    /// The model's type; older files name none.
    static std::string type_of(const json_node& node);

    kind kind_;
};

}  // namespace gptq::model::detail

#ifndef GPTQ_COMPILED
#include <gptq/model/impl/tokenizer_model.hpp>
#endif
