// The bodies of <gptq/model/embedding.hpp> that are no templates.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include <gptq/compiled.hpp>
#include <gptq/error.hpp>
#include <gptq/model/embedding.hpp>
#include <gptq/model/model_config.hpp>
#include <gptq/model/weights.hpp>

namespace gptq::model {
namespace detail {

GPTQ_INLINE void check_tokens(const model_config& c, std::span<const std::int32_t> ids, std::size_t first_position) {
    for (std::size_t t = 0; t < ids.size(); ++t)
        if (ids[t] < 0 || static_cast<std::size_t>(ids[t]) >= c.vocab_size)
            throw shape_error("token " + std::to_string(ids[t]) + " (number " + std::to_string(t) +
                              " of the input) is outside the model's vocabulary of " + std::to_string(c.vocab_size));
    if (!c.rotary() && first_position + ids.size() > c.max_positions)
        throw shape_error("the model has positions for " + std::to_string(c.max_positions) + " tokens, not for " +
                          std::to_string(first_position + ids.size()) + "; use shorter windows");
}

}  // namespace detail

GPTQ_INLINE stored_embedding read_embedding(const model_config& c, const weight_reader& weights) {
    const tensor_names& names = c.arch.names;
    const bool stored = weights.contains(std::string(names.embedding) + ".weight");
    const std::string_view name = c.tied_embeddings && !stored ? names.head : names.embedding;
    stored_embedding read;
    read.tokens = weights.read_table(std::string(name), c.vocab_size, c.embedding_size);
    if (!names.positions.empty())
        read.positions =
            weights.matrix(std::string(names.positions), c.max_positions + c.arch.position_offset, c.hidden_size);
    if (c.embedding_size != c.hidden_size)
        read.project_in = weights.read_linear(std::string(names.project_in), c.hidden_size, c.embedding_size, false);
    return read;
}

}  // namespace gptq::model
