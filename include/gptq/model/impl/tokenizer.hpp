// The bodies of <gptq/model/tokenizer.hpp>.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include <gptq/compiled.hpp>
#include <gptq/error.hpp>
#include <gptq/model/tokenizer.hpp>
#include <gptq/model/tokenizer_added_tokens.hpp>
#include <gptq/model/tokenizer_decoders.hpp>
#include <gptq/model/tokenizer_json.hpp>
#include <gptq/model/tokenizer_model.hpp>
#include <gptq/model/tokenizer_normalizers.hpp>
#include <gptq/model/tokenizer_pretokenizers.hpp>
#include <gptq/model/tokenizer_unicode.hpp>
#include <gptq/quote.hpp>

namespace gptq::model {

GPTQ_INLINE tokenizer::contents::contents(const detail::json_node& file)
    : normalize(file["normalizer"]),
      pre_tokenize(file["pre_tokenizer"]),
      model(file["model"]),
      added(file["added_tokens"], normalize),
      join(file["decoder"]) {
    const detail::json_node vocabulary = file["model"]["vocab"];
    model.for_each_token([&](const std::string& token, std::int32_t id) { name_token(id, token, vocabulary); });
    for (const detail::added_token& token : added.tokens()) {
        const detail::json_node place = file["added_tokens"];
        if (model.id_of(token.content).value_or(token.id) != token.id) {
            throw format_error(place.where() + ": " + in_quotes(token.content) + " has id " + std::to_string(token.id) +
                               ", but another one in the vocabulary");
        }
        name_token(token.id, token.content, place);
    }
    for (const detail::added_token& token : added.tokens()) {
        named_token& named = tokens.at(token.id);
        named.special = token.special;
        // What was found in normalized text is text that the decoder can undo the normalization of.
        if (token.normalized) named.text = normalize(token.content);
    }
}

GPTQ_INLINE void tokenizer::contents::name_token(std::int32_t id, const std::string& token,
                                                 const detail::json_node& place) {
    const auto [at, fresh] = tokens.try_emplace(id, named_token{token, false});
    if (!fresh && at->second.text != token) {
        throw format_error(place.where() + ": id " + std::to_string(id) + " is both " + in_quotes(at->second.text) +
                           " and " + in_quotes(token));
    }
    vocab_size = std::max(vocab_size, static_cast<std::size_t>(id) + 1);
}

GPTQ_INLINE std::optional<std::int32_t> tokenizer::contents::id_of(const std::string& token) const {
    for (const detail::added_token& candidate : added.tokens()) {
        if (candidate.content == token) return candidate.id;
    }
    return model.id_of(token);
}

GPTQ_INLINE std::vector<std::int32_t> tokenizer::encode_whole(std::string_view text) const {
    std::vector<std::int32_t> ids = encode(text);
    const auto bos = bos_id();
    const bool begun = bos && !ids.empty() && ids.front() == *bos;
    if (bos && always_adds_bos() && !begun) ids.insert(ids.begin(), *bos);
    return ids;
}

}  // namespace gptq::model
