// The bodies of <gptq/model/tokenizer_unigram.hpp>.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <gptq/compiled.hpp>
#include <gptq/error.hpp>
#include <gptq/model/tokenizer_json.hpp>
#include <gptq/model/tokenizer_prefix_tree.hpp>
#include <gptq/model/tokenizer_unicode.hpp>
#include <gptq/model/tokenizer_unigram.hpp>
#include <gptq/model/tokenizer_vocabulary.hpp>
#include <gptq/quote.hpp>

namespace gptq::model {
namespace detail {

GPTQ_INLINE unigram_model::unigram_model(const json_node& node) {
    read_pieces(node["vocab"]);
    byte_fallback_ = node["byte_fallback"].flag(false);
    byte_tokens_ = find_byte_tokens(ids_);
    if (const json_node unknown = node["unk_id"]; !unknown.is_null()) {
        if (pieces_.empty()) unknown.fail("expected no unknown token where the vocabulary is empty");
        unknown_ = unknown.number(static_cast<std::int32_t>(pieces_.size()));
    }
}

GPTQ_INLINE void unigram_model::read_pieces(const json_node& vocab) {
    const auto items = vocab.items();
    if (items.size() > static_cast<std::size_t>(max_token_id)) {
        vocab.refuse("a vocabulary of more than " + std::to_string(max_token_id) + " pieces is not supported");
    }
    double least = std::numeric_limits<double>::infinity();
    token_ids searched;
    for (const json_node& item : items) {
        const auto parts = item.items();
        if (parts.size() != 2) item.fail("expected a piece and its score");
        const std::string text = parts[0].text();
        if (text.size() > max_piece_bytes)
            parts[0].fail("expected at most " + std::to_string(max_piece_bytes) + " bytes");
        const bool scored = !parts[1].is_null();
        if (scored && !parts[1].value().is_number()) parts[1].fail("expected a number");
        const auto id = static_cast<std::int32_t>(pieces_.size());
        pieces_.push_back({text, scored ? parts[1].value().get<double>() : 0.0});
        ids_.insert_or_assign(text, id);
        if (!scored) continue;
        searched.insert_or_assign(text, id);
        least = std::min(least, pieces_.back().score);
    }
    std::vector<prefix_tree::entry> entries;
    entries.reserve(searched.size());
    for (const auto& [text, id] : searched) entries.push_back({text, id});
    tree_.emplace(std::move(entries));
    unknown_score_ = least - 10;  // SentencePiece's penalty
}

GPTQ_INLINE void unigram_model::encoder::encode(std::string_view word, std::vector<std::int32_t>& ids) {
    find_paths(word);
    ends_.clear();
    for (std::size_t end = word.size(); end > 0; end = paths_[end].begin) ends_.push_back(end);
    std::size_t unknown_begin = 0, begin = 0;
    bool unknown = false;
    for (auto end = ends_.rbegin(); end != ends_.rend(); begin = *end++) {
        const std::int32_t id = paths_[*end].id;
        if (id == model_.unknown_) {
            if (!unknown) unknown_begin = begin;
            unknown = true;
            continue;
        }
        if (unknown) append_unknown(word.substr(unknown_begin, begin - unknown_begin), ids);
        unknown = false;
        ids.push_back(id);
    }
    if (unknown) append_unknown(word.substr(unknown_begin), ids);
}

GPTQ_INLINE void unigram_model::encoder::find_paths(std::string_view word) {
    paths_.assign(word.size() + 1, {0.0, 0, -1});
    for_each_character(word, [&](char32_t, std::size_t begin, std::size_t length) {
        bool whole_character = false;
        model_.tree_->for_each_prefix(word.substr(begin), [&](std::size_t size, std::int32_t id) {
            extend(begin, begin + size, model_.pieces_[static_cast<std::size_t>(id)].score, id);
            whole_character = whole_character || size == length;
        });
        if (whole_character) return;
        const std::int32_t unknown = model_.unknown_.value_or(0);
        if (extend(begin, begin + length, model_.unknown_score_, unknown) && !model_.unknown_) {
            throw unsupported_error("the tokenizer has no piece for " + in_quotes(word.substr(begin, length)) +
                                    ", and no unknown piece; give model.unk_id in tokenizer.json");
        }
    });
}

GPTQ_INLINE bool unigram_model::encoder::extend(std::size_t begin, std::size_t end, double score, std::int32_t id) {
    const double total = paths_[begin].score + score;
    path& best = paths_[end];
    if (best.id >= 0 && !(total > best.score)) return false;
    best = {total, begin, id};
    return true;
}

/// A run of unknown characters: the bytes' tokens where all have one, else one token.
GPTQ_INLINE void unigram_model::encoder::append_unknown(std::string_view text, std::vector<std::int32_t>& ids) const {
    if (const auto whole = model_.id_of(text)) return ids.push_back(*whole);
    if (!model_.byte_fallback_ || !knows_all_bytes(model_.byte_tokens_, text)) return ids.push_back(*model_.unknown_);
    for (const char byte : text) ids.push_back(*model_.byte_tokens_[static_cast<unsigned char>(byte)]);
}

}  // namespace detail
}  // namespace gptq::model
