// The bodies of <gptq/model/tokenizer_gguf.hpp>.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include <gptq/compiled.hpp>
#include <gptq/error.hpp>
#include <gptq/io/gguf.hpp>
#include <gptq/model/tokenizer_gguf.hpp>
#include <gptq/model/tokenizer_json.hpp>
#include <gptq/model/tokenizer_sentencepiece.hpp>
#include <gptq/model/tokenizer_unicode.hpp>
#include <gptq/model/tokenizer_vocabulary.hpp>
#include <gptq/quote.hpp>

namespace gptq::model {
namespace detail {

/// The words of Llama 3 and Qwen 2: letters with what stands before them, up to that many digits, marks, space.
inline nlohmann::json words_with_digits(const char* digits) {
    return {{"type", "Split"},
            {"pattern",
             {{"Regex", "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|" + std::string(digits) +
                            "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"}}},
            {"behavior", "Isolated"},
            {"invert", false}};
}

/// How byte-level BPE cuts words, by llama.cpp's name for it.
inline nlohmann::json words_of(const io::gguf_file& file) {
    const std::string key = "tokenizer.ggml.pre", name = file.contains(key) ? file.text(key) : "default";
    nlohmann::json bytes{{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", true}};
    if (name == "gpt-2" || name == "default") return bytes;
    nlohmann::json steps = nlohmann::json::array();
    if (name == "smollm") {
        steps.push_back({{"type", "Digits"}, {"individual_digits", true}});
    } else if (name == "llama-bpe" || name == "qwen2") {
        steps.push_back(words_with_digits(name == "qwen2" ? "\\p{N}" : "\\p{N}{1,3}"));
        bytes["use_regex"] = false;
    } else {
        throw unsupported_error(file.path().string() + ": its tokenizer cuts words as " + in_quotes(name) +
                                ", which is not known; give the model's folder");
    }
    steps.push_back(std::move(bytes));
    return {{"type", "Sequence"}, {"pretokenizers", std::move(steps)}};
}

/// The id under a key, of one of `tokens` tokens; a negative number if there is none.
inline std::int32_t gguf_token_id(const io::gguf_file& file, const char* key, std::size_t tokens) {
    const auto id = file.number("tokenizer.ggml." + std::string(key));
    return id && *id < tokens ? static_cast<std::int32_t>(*id) : -1;
}

/// Pieces of the file, whose kinds have SentencePiece's numbers.
inline std::vector<sentencepiece_file::piece> gguf_pieces(const io::gguf_file& file, bool scored) {
    using kind = sentencepiece_file::piece_kind;
    std::vector<std::string> tokens = file.texts("tokenizer.ggml.tokens");
    const auto kinds = file.numbers<std::int32_t>("tokenizer.ggml.token_type");
    const auto scores = scored ? file.numbers<float>("tokenizer.ggml.scores") : std::vector<float>(tokens.size(), 0.0f);
    const auto fail = [&](const std::string& what) {
        throw format_error(file.path().string() + ": its tokenizer " + what);
    };
    if (tokens.size() > static_cast<std::size_t>(max_token_id)) fail("has too many tokens");
    if (kinds.size() != tokens.size() || scores.size() != tokens.size()) fail("has lists of different lengths");
    std::vector<sentencepiece_file::piece> pieces;
    for (std::size_t i = 0; i < tokens.size(); ++i) {
        if (kinds[i] < 1 || kinds[i] > static_cast<int>(kind::byte) || !std::isfinite(scores[i]) || tokens[i].empty() ||
            tokens[i].size() > 1024 || !is_valid_utf8(tokens[i]))
            fail("has no text, kind or score for token " + std::to_string(i));
        pieces.push_back({std::move(tokens[i]), scores[i], static_cast<kind>(kinds[i])});
    }
    return pieces;
}

inline nlohmann::json gguf_byte_bpe(const io::gguf_file& file, bool with_bos) {
    using kind = sentencepiece_file::piece_kind;
    const auto pieces = gguf_pieces(file, false);
    nlohmann::json model{{"type", "BPE"}}, added = nlohmann::json::array(), out;
    auto& vocabulary = model["vocab"] = nlohmann::json::object();
    for (std::uint32_t id = 0; id < pieces.size(); ++id) {
        const auto& piece = pieces[id];
        if (piece.kind == kind::control || piece.kind == kind::user_defined)
            added.push_back(added_token_entry(id, piece.text, piece.kind == kind::control));
        else
            vocabulary[piece.text] = id;
    }
    model["merges"] = file.texts("tokenizer.ggml.merges");
    out["model"] = std::move(model);
    out["added_tokens"] = std::move(added);
    out["pre_tokenizer"] = words_of(file);
    out["decoder"]["type"] = "ByteLevel";
    const auto bos = gguf_token_id(file, "bos_token_id", pieces.size());
    const auto eos = gguf_token_id(file, "eos_token_id", pieces.size());
    if (eos >= 0) out["eos_token"] = pieces[static_cast<std::size_t>(eos)].text;
    if (bos < 0) return out;
    out["bos_token"] = pieces[static_cast<std::size_t>(bos)].text;
    if (with_bos)
        out["post_processor"] = template_of(out["bos_token"].get<std::string>(), static_cast<std::uint32_t>(bos));
    return out;
}

inline nlohmann::json gguf_sentencepiece(const io::gguf_file& file, bool with_bos) {
    sentencepiece_file parsed;
    parsed.pieces = gguf_pieces(file, true);
    parsed.model = sentencepiece_file::algorithm::bpe;
    for (const auto& piece : parsed.pieces)
        parsed.byte_fallback = parsed.byte_fallback || piece.kind == sentencepiece_file::piece_kind::byte;
    parsed.adds_prefix = file.real("tokenizer.ggml.add_space_prefix").value_or(1.0) != 0.0;
    parsed.removes_spaces = false;
    parsed.bos = gguf_token_id(file, "bos_token_id", parsed.pieces.size());
    parsed.eos = gguf_token_id(file, "eos_token_id", parsed.pieces.size());
    const nlohmann::json nothing = nlohmann::json::object();
    const json_node none(nothing, file.path().string());
    return sentencepiece_document(parsed, none, none, with_bos);
}

GPTQ_INLINE nlohmann::json gguf_tokenizer(const io::gguf_file& file) {
    const std::string kind = file.text("tokenizer.ggml.model");
    const auto with_bos = [&](bool usual) {
        return file.real("tokenizer.ggml.add_bos_token").value_or(usual ? 1.0 : 0.0) != 0.0;
    };
    if (kind == "gpt2") {
        const std::string key = "tokenizer.ggml.pre";
        return gguf_byte_bpe(file, with_bos(file.contains(key) && file.text(key) == "llama-bpe"));
    }
    if (kind == "llama") return gguf_sentencepiece(file, with_bos(true));
    throw unsupported_error(file.path().string() + ": a tokenizer of the kind " + in_quotes(kind) +
                            " is not read from GGUF; give the model's folder");
}

}  // namespace detail
}  // namespace gptq::model
