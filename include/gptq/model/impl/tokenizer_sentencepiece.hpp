// The bodies of <gptq/model/tokenizer_sentencepiece.hpp>.
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include <gptq/compiled.hpp>
#include <gptq/error.hpp>
#include <gptq/model/tokenizer_json.hpp>
#include <gptq/model/tokenizer_protobuf.hpp>
#include <gptq/model/tokenizer_sentencepiece.hpp>
#include <gptq/model/tokenizer_unicode.hpp>
#include <gptq/model/tokenizer_vocabulary.hpp>
#include <gptq/quote.hpp>

namespace gptq::model {
namespace detail {

[[noreturn]] inline void refuse_sentencepiece(const std::string& where, const std::string& what) {
    throw format_error(where + ": not a tokenizer of SentencePiece: " + what + "; download the file again");
}

template <class Enumeration>
Enumeration choice_of(std::uint64_t value, Enumeration last, const std::string& where) {
    if (value < 1 || value > static_cast<std::uint64_t>(last)) {
        refuse_sentencepiece(where, "a kind has the number " + std::to_string(value));
    }
    return static_cast<Enumeration>(value);
}

inline sentencepiece_file::piece parse_piece(std::string_view message, const std::string& where) {
    sentencepiece_file::piece out;
    protobuf_reader reader(message, where);
    while (const auto field = reader.next()) {
        if (field->number == 1) out.text = reader.bytes_of(*field);
        if (field->number == 2) out.score = std::bit_cast<float>(static_cast<std::uint32_t>(reader.number_of(*field)));
        if (field->number == 3)
            out.kind = choice_of(reader.number_of(*field), sentencepiece_file::piece_kind::byte, where);
    }
    if (out.text.empty() || !is_valid_utf8(out.text)) refuse_sentencepiece(where, "a piece is no text");
    if (out.text.size() > 1024) refuse_sentencepiece(where, "a piece has more than 1024 bytes");
    if (!std::isfinite(out.score)) refuse_sentencepiece(where, "the score of " + in_quotes(out.text) + " is no number");
    return out;
}

inline void parse_trainer(std::string_view message, const std::string& where, sentencepiece_file& out) {
    protobuf_reader reader(message, where);
    while (const auto field = reader.next()) {
        // Negative numbers have all their 64 bits set.
        const auto id = [&] { return static_cast<std::int32_t>(reader.number_of(*field)); };
        switch (field->number) {
            case 3:
                out.model = choice_of(reader.number_of(*field), sentencepiece_file::algorithm::character, where);
                break;
            case 24: out.space_as_suffix = reader.number_of(*field) != 0; break;
            case 35: out.byte_fallback = reader.number_of(*field) != 0; break;
            case 41: out.bos = id(); break;
            case 42: out.eos = id(); break;
            default: break;
        }
    }
}

inline void parse_normalizer(std::string_view message, const std::string& where, sentencepiece_file& out) {
    protobuf_reader reader(message, where);
    while (const auto field = reader.next()) {
        switch (field->number) {
            case 2: out.character_map = reader.bytes_of(*field); break;
            case 3: out.adds_prefix = reader.number_of(*field) != 0; break;
            case 4: out.removes_spaces = reader.number_of(*field) != 0; break;
            case 5: out.marks_spaces = reader.number_of(*field) != 0; break;
            default: break;
        }
    }
}

GPTQ_INLINE sentencepiece_file parse_sentencepiece(std::string_view bytes, const std::string& where) {
    sentencepiece_file out;
    protobuf_reader reader(bytes, where);
    while (const auto field = reader.next()) {
        if (field->number == 1) out.pieces.push_back(parse_piece(reader.bytes_of(*field), where));
        if (field->number == 2) parse_trainer(reader.bytes_of(*field), where, out);
        if (field->number == 3) parse_normalizer(reader.bytes_of(*field), where, out);
    }
    if (out.pieces.empty()) refuse_sentencepiece(where, "it has no pieces");
    if (out.pieces.size() > static_cast<std::size_t>(max_token_id))
        refuse_sentencepiece(where, "it has too many pieces");
    const auto refuse = [&](const char* what) { throw unsupported_error(where + ": " + what + " is not supported"); };
    if (out.model == sentencepiece_file::algorithm::word) refuse("a tokenizer of whole words");
    if (out.space_as_suffix) refuse("a tokenizer that marks spaces at the end of words (treat_whitespace_as_suffix)");
    // They may be merged on the way to others, and are taken apart again if they are left.
    const bool unused = std::any_of(out.pieces.begin(), out.pieces.end(), [](const sentencepiece_file::piece& piece) {
        return piece.kind == sentencepiece_file::piece_kind::unused;
    });
    if (unused && out.model == sentencepiece_file::algorithm::bpe) refuse("a BPE tokenizer with unused pieces");
    if (!out.marks_spaces) refuse("a tokenizer that does not mark spaces (escape_whitespaces)");
    return out;
}

/// Whether texts are searched for the piece.
inline bool occurs_in_text(const sentencepiece_file::piece& piece) {
    using kind = sentencepiece_file::piece_kind;
    return piece.kind == kind::normal || piece.kind == kind::user_defined;
}

inline nlohmann::json unigram_of(const sentencepiece_file& file) {
    using kind = sentencepiece_file::piece_kind;
    double most = -std::numeric_limits<double>::infinity();
    for (const auto& piece : file.pieces) {
        if (piece.kind == kind::normal) most = std::max(most, double{piece.score});
    }
    auto vocabulary = nlohmann::json::array();
    nlohmann::json unknown;
    for (const auto& piece : file.pieces) {
        if (piece.kind == kind::unknown) unknown = vocabulary.size();
        nlohmann::json score;
        if (occurs_in_text(piece)) score = double{piece.score};
        // What users define goes before everything else, and the longest of it before the others.
        if (piece.kind == kind::user_defined && std::isfinite(most)) {
            score = static_cast<double>(piece.text.size()) * most - 0.1;
        }
        vocabulary.push_back({piece.text, score});
    }
    return {{"type", "Unigram"}, {"unk_id", unknown}, {"vocab", vocabulary}, {"byte_fallback", file.byte_fallback}};
}

/// SentencePiece merges whatever gives a piece, the one with the highest score first; a list of merges says the same
/// with all pairs that give a piece, at one rank for pieces of one score.
inline void list_merges(const sentencepiece_file& file, nlohmann::json& model) {
    struct merge {
        float score;
        const std::string* piece;
        std::size_t cut;
    };
    token_ids known;
    for (const auto& piece : file.pieces) {
        if (occurs_in_text(piece)) known.emplace(piece.text, 0);
    }
    std::vector<merge> merges;
    for (const auto& piece : file.pieces) {
        if (!occurs_in_text(piece)) continue;
        const std::string_view text = piece.text;
        for_each_character(text, [&](char32_t, std::size_t cut, std::size_t) {
            if (known.contains(text.substr(0, cut)) && known.contains(text.substr(cut))) {
                merges.push_back({piece.score, &piece.text, cut});
            }
        });
    }
    std::stable_sort(merges.begin(), merges.end(), [](const merge& a, const merge& b) { return a.score > b.score; });
    auto pairs = nlohmann::json::array(), ranks = nlohmann::json::array();
    std::uint32_t rank = 0;  // unsigned, as numbers of JSON are when they are read
    for (std::size_t i = 0; i < merges.size(); ++i) {
        if (i > 0 && merges[i].score < merges[i - 1].score) ++rank;
        pairs.push_back({merges[i].piece->substr(0, merges[i].cut), merges[i].piece->substr(merges[i].cut)});
        ranks.push_back(rank);
    }
    model["merges"] = std::move(pairs);
    model["merge_ranks"] = std::move(ranks);
}

inline nlohmann::json bpe_of(const sentencepiece_file& file) {
    using kind = sentencepiece_file::piece_kind;
    nlohmann::json model{{"type", "BPE"}, {"fuse_unk", true}, {"byte_fallback", file.byte_fallback}};
    auto& vocabulary = model["vocab"] = nlohmann::json::object();
    std::uint32_t id = 0;
    for (const auto& piece : file.pieces) {
        vocabulary[piece.text] = id++;
        if (piece.kind == kind::unknown) model["unk_token"] = piece.text;
    }
    model["merges"] = nlohmann::json::array();
    if (file.model == sentencepiece_file::algorithm::bpe) list_merges(file, model);
    return model;
}

inline nlohmann::json replacement_step(const char* kind, const char* from, const char* to) {
    return {{"type", "Replace"}, {"pattern", {{kind, from}}}, {"content", to}};
}

/// The normalizer; `prefixed` says that it puts the space before the text.
inline nlohmann::json normalizer_of(const sentencepiece_file& file, bool prefixed) {
    auto steps = nlohmann::json::array();
    if (!file.character_map.empty()) {
        const auto* bytes = reinterpret_cast<const std::uint8_t*>(file.character_map.data());
        std::vector<std::uint8_t> table(bytes, bytes + file.character_map.size());
        steps.push_back({{"type", "Precompiled"}, {"precompiled_charsmap", nlohmann::json::binary(std::move(table))}});
    }
    if (file.removes_spaces) {
        steps.push_back(replacement_step("Regex", "\\A +", ""));
        steps.push_back(replacement_step("Regex", " {2,}", " "));
    }
    if (prefixed) steps.push_back({{"type", "Prepend"}, {"prepend", "▁"}});
    steps.push_back(replacement_step("String", " ", "▁"));
    if (file.removes_spaces) steps.push_back(replacement_step("Regex", "▁+\\z", ""));
    return {{"type", "Sequence"}, {"normalizers", std::move(steps)}};
}

inline nlohmann::json decoder_of(const sentencepiece_file& file) {
    auto steps = nlohmann::json::array({replacement_step("String", "▁", " "), {{"type", "ByteFallback"}}});
    steps.push_back({{"type", "Fuse"}});
    if (file.adds_prefix || file.removes_spaces) {
        const std::uint32_t start = file.removes_spaces ? 1U << 29 : 1;
        steps.push_back({{"type", "Strip"}, {"content", " "}, {"start", start}, {"stop", 0U}});
    }
    return {{"type", "Sequence"}, {"decoders", std::move(steps)}};
}

GPTQ_INLINE nlohmann::json added_token_entry(std::uint32_t id, const std::string& text, bool special) {
    return {{"id", id}, {"content", text}, {"special", special}, {"normalized", false}};
}

inline nlohmann::json added_tokens_of(const sentencepiece_file& file, const json_node& config,
                                      const json_node& more_tokens) {
    using kind = sentencepiece_file::piece_kind;
    auto out = nlohmann::json::array();
    std::uint32_t id = 0;
    for (const auto& piece : file.pieces) {
        if (piece.kind == kind::unknown || piece.kind == kind::control || piece.kind == kind::user_defined) {
            out.push_back(added_token_entry(id, piece.text, piece.kind != kind::user_defined));
        }
        ++id;
    }
    const auto beyond = [&](const json_node& number) {
        return number.number(max_token_id) >= static_cast<std::int32_t>(id);
    };
    if (const auto decoder = config["added_tokens_decoder"]; !decoder.is_null()) {
        for (const auto& [key, entry] : decoder.value().items()) {
            auto token = entry;
            const bool digits = !key.empty() && key.size() < 9 && key.find_first_not_of("0123456789") == key.npos;
            if (!digits || !token.is_object()) decoder.fail("expected ids and their tokens");
            token["id"] = static_cast<std::uint32_t>(std::stoul(key));
            if (beyond(json_node(token["id"], decoder.where()))) out.push_back(std::move(token));
        }
    } else if (!more_tokens.is_null()) {
        for (const auto& [text, number] : more_tokens.value().items()) {
            const json_node place(number, more_tokens.where());
            if (beyond(place)) out.push_back(added_token_entry(number.get<std::uint32_t>(), text, false));
        }
    }
    return out;
}

GPTQ_INLINE nlohmann::json template_of(const std::string& bos, std::uint32_t id) {
    nlohmann::json out{{"type", "TemplateProcessing"}};
    out["single"][0]["SpecialToken"]["id"] = bos;
    out["special_tokens"][bos]["ids"][0] = id;
    return out;
}

GPTQ_INLINE nlohmann::json sentencepiece_document(const sentencepiece_file& file, const json_node& config,
                                                  const json_node& more_tokens, bool begins_with_bos) {
    const bool each = file.adds_prefix && config["legacy"].flag(true), first = file.adds_prefix && !each;
    nlohmann::json out;
    out["model"] = file.model == sentencepiece_file::algorithm::unigram ? unigram_of(file) : bpe_of(file);
    out["normalizer"] = normalizer_of(file, each);
    if (first) {
        out["pre_tokenizer"] = {
            {"type", "Metaspace"}, {"replacement", "▁"}, {"prepend_scheme", "first"}, {"split", false}};
    }
    out["decoder"] = decoder_of(file);
    out["added_tokens"] = added_tokens_of(file, config, more_tokens);
    const auto name = [&](const char* key, std::int32_t id) {
        if (id < 0 || static_cast<std::size_t>(id) >= file.pieces.size()) return false;
        out[key] = file.pieces[static_cast<std::size_t>(id)].text;
        return true;
    };
    name("eos_token", file.eos);
    if (name("bos_token", file.bos) && begins_with_bos) {
        out["post_processor"] = template_of(out["bos_token"].get<std::string>(), static_cast<std::uint32_t>(file.bos));
    }
    return out;
}

}  // namespace detail
}  // namespace gptq::model
