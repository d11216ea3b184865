// Reads tokenizer.model, the file of SentencePiece, for folders without a tokenizer.json.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json.hpp>

#include <gptq/model/tokenizer_json.hpp>

namespace gptq::model::detail {

/// What a SentencePiece file says, as far as it matters for encoding and decoding.
struct sentencepiece_file {
    enum class piece_kind { normal = 1, unknown, control, user_defined, unused, byte };
    enum class algorithm { unigram = 1, bpe, word, character };

    struct piece {
        std::string text;
        float score = 0;
        piece_kind kind = piece_kind::normal;
    };

    std::vector<piece> pieces;  ///< By id.
    algorithm model = algorithm::unigram;
    bool byte_fallback = false;
    bool space_as_suffix = false;  ///< The mark of a space is at the end of a word.
    std::int32_t bos = 1;          ///< The id, or a negative number.
    std::int32_t eos = 2;
    std::string character_map;   ///< As character_map wants it; may be empty.
    bool adds_prefix = true;     ///< A space before the text.
    bool removes_spaces = true;  ///< At both ends, and all but one of several.
    bool marks_spaces = true;
};

/// Throws format_error if the bytes are no SentencePiece file.
sentencepiece_file parse_sentencepiece(std::string_view bytes, const std::string& where);

/// The tokenizer.json that says the same as the file. Ids are SentencePiece's own for texts without control pieces;
/// those, and pieces that users defined, become added tokens, as transformers makes them.
///
/// `config` is the content of tokenizer_config.json: "legacy" (true by default) puts the space before each stretch
/// between added tokens rather than before the first, "add_bos_token" says whether a text begins with the token for it,
/// and "added_tokens_decoder" has more tokens. `more_tokens` is the content of added_tokens.json: tokens and ids.
nlohmann::json sentencepiece_document(const sentencepiece_file& file, const json_node& config,
                                      const json_node& more_tokens, bool begins_with_bos);

/// An entry of "added_tokens", and a "post_processor" that begins a text with a token.
nlohmann::json added_token_entry(std::uint32_t id, const std::string& text, bool special);
nlohmann::json template_of(const std::string& bos, std::uint32_t id);

}  // namespace gptq::model::detail

#ifndef GPTQ_COMPILED
#include <gptq/model/impl/tokenizer_sentencepiece.hpp>
#endif
