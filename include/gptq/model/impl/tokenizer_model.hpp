// The bodies of <gptq/model/tokenizer_model.hpp>.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

#include <gptq/compiled.hpp>
#include <gptq/model/tokenizer_bpe.hpp>
#include <gptq/model/tokenizer_json.hpp>
#include <gptq/model/tokenizer_model.hpp>
#include <gptq/model/tokenizer_unigram.hpp>
#include <gptq/model/tokenizer_wordpiece.hpp>
#include <gptq/quote.hpp>

namespace gptq::model {
namespace detail {

GPTQ_INLINE std::string token_model::type_of(const json_node& node) {
    if (const auto type = node["type"].optional_text()) return *type;
    if (!node["merges"].is_null()) return "BPE";
    if (node["vocab"].value().is_array()) return "Unigram";
    return node["continuing_subword_prefix"].is_null() ? "WordLevel" : "WordPiece";
}

GPTQ_INLINE token_model::kind token_model::make(const json_node& node) {
    const std::string type = type_of(node);
    if (type == "BPE") return kind(std::in_place_type<bpe_model>, node);
    if (type == "Unigram") return kind(std::in_place_type<unigram_model>, node);
    if (type == "WordPiece") return kind(std::in_place_type<wordpiece_model>, node, false);
    if (type == "WordLevel") return kind(std::in_place_type<wordpiece_model>, node, true);
    node.refuse("a tokenizer of type " + in_quotes(type) +
                " is not supported, only BPE, Unigram, WordPiece and WordLevel are");
}

GPTQ_INLINE std::optional<std::int32_t> token_model::id_of(std::string_view token) const {
    return std::visit([&](const auto& model) { return model.id_of(token); }, kind_);
}

GPTQ_INLINE token_model::encoder::kind token_model::encoder::make(const token_model& model) {
    return std::visit(
        [](const auto& one) -> kind {
            using encoder = typename std::decay_t<decltype(one)>::encoder;
            return kind(std::in_place_type<encoder>, one);
        },
        model.kind_);
}

GPTQ_INLINE void token_model::encoder::encode(std::string_view word, std::vector<std::int32_t>& ids) {
    std::visit([&](auto& one) { one.encode(word, ids); }, kind_);
}

}  // namespace detail
}  // namespace gptq::model
