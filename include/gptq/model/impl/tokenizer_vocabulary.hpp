// The bodies of <gptq/model/tokenizer_vocabulary.hpp>.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include <gptq/compiled.hpp>
#include <gptq/model/tokenizer_json.hpp>
#include <gptq/model/tokenizer_vocabulary.hpp>
#include <gptq/quote.hpp>

namespace gptq::model {
namespace detail {

GPTQ_INLINE token_ids read_vocabulary(const json_node& node) {
    if (!node.value().is_object()) node.fail("expected an object of tokens and their ids");
    token_ids out;
    out.reserve(node.value().size());
    for (const auto& [token, id] : node.value().items()) {
        out.emplace(token, json_node(id, node.where() + "." + in_quotes(token)).number(max_token_id));
    }
    return out;
}

GPTQ_INLINE std::string read_mark(const json_node& node, const char* otherwise) {
    std::string mark = node.optional_text().value_or(otherwise);
    if (mark.size() > max_piece_bytes) node.fail("expected at most " + std::to_string(max_piece_bytes) + " bytes");
    return mark;
}

GPTQ_INLINE std::optional<std::int32_t> find_id(const token_ids& ids, std::string_view token) {
    const auto found = ids.find(token);
    return found == ids.end() ? std::nullopt : std::optional(found->second);
}

GPTQ_INLINE byte_token_ids find_byte_tokens(const token_ids& ids) {
    static constexpr const char* digits = "0123456789ABCDEF";
    byte_token_ids out;
    for (std::size_t byte = 0; byte < 256; ++byte) {
        out[byte] = find_id(ids, std::string("<0x") + digits[byte / 16] + digits[byte % 16] + ">");
    }
    return out;
}

GPTQ_INLINE bool knows_all_bytes(const byte_token_ids& bytes, std::string_view text) {
    return std::all_of(text.begin(), text.end(),
                       [&](char byte) { return bytes[static_cast<unsigned char>(byte)].has_value(); });
}

}  // namespace detail
}  // namespace gptq::model
