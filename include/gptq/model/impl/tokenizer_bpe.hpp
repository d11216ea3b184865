// The bodies of <gptq/model/tokenizer_bpe.hpp>.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include <gptq/compiled.hpp>
#include <gptq/error.hpp>
#include <gptq/model/tokenizer_bpe.hpp>
#include <gptq/model/tokenizer_json.hpp>
#include <gptq/model/tokenizer_unicode.hpp>
#include <gptq/model/tokenizer_vocabulary.hpp>
#include <gptq/quote.hpp>

namespace gptq::model {
namespace detail {

GPTQ_INLINE bpe_model::bpe_model(const json_node& node) {
    refuse_dropout(node["dropout"]);
    vocabulary_ = read_vocabulary(node["vocab"]);
    byte_fallback_ = node["byte_fallback"].flag(false);
    fuse_unknown_ = node["fuse_unk"].flag(false);
    ignore_merges_ = node["ignore_merges"].flag(false);
    prefix_ = read_mark(node["continuing_subword_prefix"], "");
    suffix_ = read_mark(node["end_of_word_suffix"], "");
    read_merges(node["merges"], node["merge_ranks"]);
    if (const json_node unknown = node["unk_token"]; !unknown.is_null()) {
        unknown_ = id_of(unknown.text());
        if (!unknown_) unknown.fail("expected a token of the vocabulary");
    }
    byte_tokens_ = find_byte_tokens(vocabulary_);
}

GPTQ_INLINE void bpe_model::encoder::encode(std::string_view word, std::vector<std::int32_t>& ids) {
    if (model_.ignore_merges_) {
        if (const auto whole = model_.id_of(word)) return ids.push_back(*whole);
    }
    if (word.size() > longest_remembered) return encode_new(word, ids);
    if (const auto known = seen_.find(word); known != seen_.end()) {
        const auto first = remembered_.begin() + static_cast<std::ptrdiff_t>(known->second.first);
        ids.insert(ids.end(), first, first + static_cast<std::ptrdiff_t>(known->second.second));
        return;
    }
    const std::size_t before = ids.size();
    encode_new(word, ids);
    const std::size_t count = ids.size() - before;
    seen_.emplace(word, std::pair(remembered_.size(), count));
    remembered_.insert(remembered_.end(), ids.end() - static_cast<std::ptrdiff_t>(count), ids.end());
}

GPTQ_INLINE bool bpe_model::encoder::candidate::operator<(const candidate& other) const {
    return rank != other.rank ? rank > other.rank : position > other.position;
}

GPTQ_INLINE void bpe_model::encoder::encode_new(std::string_view word, std::vector<std::int32_t>& ids) {
    split_into_symbols(word);
    if (symbols_.empty()) return;
    merge_symbols();
    for (std::uint32_t at = 0; at != none; at = symbols_[at].next) ids.push_back(symbols_[at].id);
}

GPTQ_INLINE void bpe_model::encoder::append(std::int32_t id) {
    const auto at = static_cast<std::uint32_t>(symbols_.size());
    if (at > 0) symbols_.back().next = at;
    symbols_.push_back({id, at == 0 ? none : at - 1, none});
}

GPTQ_INLINE void bpe_model::encoder::split_into_symbols(std::string_view word) {
    // Positions have 32 bits; with byte fallback a byte can be a symbol.
    if (word.size() >= none) throw unsupported_error("cannot tokenize a single word of 4 GiB or more");
    symbols_.clear();
    bool unknown_pending = false;
    for_each_character(word, [&](char32_t, std::size_t begin, std::size_t length) {
        const bool last = begin + length == word.size();
        const std::string_view token = model_.decorate(word.substr(begin, length), begin == 0, last, buffer_);
        if (const auto id = model_.id_of(token)) {
            if (unknown_pending) append(*model_.unknown_);
            unknown_pending = false;
            append(*id);
        } else if (model_.knows_bytes_of(token)) {
            // A pending unknown token stays behind these bytes; the reference implementation does the same.
            for (const char byte : token) append(*model_.byte_tokens_[static_cast<unsigned char>(byte)]);
        } else if (model_.unknown_) {
            if (unknown_pending && !model_.fuse_unknown_) append(*model_.unknown_);
            unknown_pending = true;
        }
    });
    if (unknown_pending) append(*model_.unknown_);
}

GPTQ_INLINE void bpe_model::encoder::propose(std::uint32_t position) {
    const std::uint32_t next = symbols_[position].next;
    if (next == none) return;
    const auto found = model_.merges_.find(pair_key(symbols_[position].id, symbols_[next].id));
    if (found == model_.merges_.end()) return;
    candidates_.push_back({found->second.rank, position, found->second.id});
}

GPTQ_INLINE bool bpe_model::encoder::current(const candidate& c) const {
    const symbol& left = symbols_[c.position];
    if (left.id < 0 || left.next == none) return false;
    const auto found = model_.merges_.find(pair_key(left.id, symbols_[left.next].id));
    return found != model_.merges_.end() && found->second.id == c.id;
}

GPTQ_INLINE void bpe_model::encoder::merge_symbols() {
    candidates_.clear();
    for (std::uint32_t at = 0; at < symbols_.size(); ++at) propose(at);
    std::make_heap(candidates_.begin(), candidates_.end());
    while (!candidates_.empty()) {
        std::pop_heap(candidates_.begin(), candidates_.end());
        const candidate best = candidates_.back();
        candidates_.pop_back();
        if (!current(best)) continue;
        symbol& left = symbols_[best.position];
        symbol& right = symbols_[left.next];
        left.id = best.id;
        left.next = right.next;
        right.id = -1;
        if (left.next != none) symbols_[left.next].previous = best.position;
        push_proposal(best.position);
        if (left.previous != none) push_proposal(left.previous);
    }
}

GPTQ_INLINE void bpe_model::encoder::push_proposal(std::uint32_t position) {
    const std::size_t before = candidates_.size();
    propose(position);
    if (candidates_.size() != before) std::push_heap(candidates_.begin(), candidates_.end());
}

GPTQ_INLINE std::uint64_t bpe_model::pair_key(std::int32_t left, std::int32_t right) {
    return static_cast<std::uint64_t>(static_cast<std::uint32_t>(left)) << 32 | static_cast<std::uint32_t>(right);
}

GPTQ_INLINE void bpe_model::refuse_dropout(const json_node& dropout) {
    if (!dropout.is_null() && dropout.value() != 0.0)
        dropout.refuse("dropout, which makes ids random, is not supported");
}

GPTQ_INLINE std::pair<std::string, std::string> bpe_model::parse_merge(const json_node& merge) {
    if (merge.value().is_array()) {
        const auto parts = merge.items();
        if (parts.size() != 2) merge.fail("expected two tokens to merge");
        return {parts[0].text(), parts[1].text()};
    }
    const std::string both = merge.text();
    const auto space = both.find(' ');
    if (space == std::string::npos || both.find(' ', space + 1) != std::string::npos) {
        merge.fail("expected two tokens with one space between them");
    }
    return {both.substr(0, space), both.substr(space + 1)};
}

GPTQ_INLINE void bpe_model::read_merges(const json_node& node, const json_node& ranks) {
    const auto entries = node.items();
    const auto places = ranks.is_null() ? entries : ranks.items();
    if (places.size() != entries.size()) ranks.fail("expected as many ranks as merges");
    merges_.reserve(entries.size());
    for (std::uint32_t i = 0; i < entries.size(); ++i) {
        const json_node entry = entries[i];
        const auto rank = ranks.is_null() ? i : static_cast<std::uint32_t>(places[i].number(1 << 30));
        const auto [left, right] = parse_merge(entry);
        const auto find = [&](const std::string& token) {
            const auto id = id_of(token);
            if (!id) entry.fail(in_quotes(token) + " is not in the vocabulary");
            return *id;
        };
        if (right.size() < prefix_.size()) entry.fail("expected a token that begins with " + in_quotes(prefix_));
        const std::uint64_t key = pair_key(find(left), find(right));
        merges_.insert_or_assign(key, merge{rank, find(left + right.substr(prefix_.size()))});
    }
}

GPTQ_INLINE std::string_view bpe_model::decorate(std::string_view character, bool first, bool last,
                                                 std::string& buffer) const {
    if ((first || prefix_.empty()) && (!last || suffix_.empty())) return character;
    buffer.clear();
    if (!first) buffer += prefix_;
    buffer += character;
    if (last) buffer += suffix_;
    return buffer;
}

GPTQ_INLINE bool bpe_model::knows_bytes_of(std::string_view token) const {
    return byte_fallback_ && knows_all_bytes(byte_tokens_, token);
}

}  // namespace detail
}  // namespace gptq::model
