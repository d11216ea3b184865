// The bodies of <gptq/model/embedding.hpp>.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include <gptq/compiled.hpp>
#include <gptq/error.hpp>
#include <gptq/matrix_view.hpp>
#include <gptq/model/buffers.hpp>
#include <gptq/model/embedding.hpp>
#include <gptq/model/model_config.hpp>
#include <gptq/model/table.hpp>
#include <gptq/model/weights.hpp>
#include <gptq/xtensor/adapt.hpp>

namespace gptq::model {

GPTQ_INLINE void embedding::look_up(const model_config& c, std::span<const std::int32_t> ids,
                                    std::size_t first_position, matrix_view<float> out) const {
    if (project_in) {
        matrix<float> narrow(ids.size(), c.embedding_size);
        look_up_tokens(c, ids, narrow.view());
        project_in.apply(narrow.view(), out);
    } else {
        look_up_tokens(c, ids, out);
    }
    if (positions.size() != 0) add_positions(c, first_position, out);
}

GPTQ_INLINE void embedding::look_up_tokens(const model_config& c, std::span<const std::int32_t> ids,
                                           matrix_view<float> out) const {
    for (std::size_t t = 0; t < ids.size(); ++t) {
        if (ids[t] < 0 || static_cast<std::size_t>(ids[t]) >= c.vocab_size)
            throw shape_error("token " + std::to_string(ids[t]) + " (number " + std::to_string(t) +
                              " of the input) is outside the model's vocabulary of " + std::to_string(c.vocab_size));
        tokens.copy_row(static_cast<std::size_t>(ids[t]), c.embedding_scale, out.row(t));
    }
}

GPTQ_INLINE void embedding::add_positions(const model_config& c, std::size_t first, matrix_view<float> out) const {
    if (first + out.rows > c.max_positions)
        throw shape_error("the model has positions for " + std::to_string(c.max_positions) + " tokens, not for " +
                          std::to_string(first + out.rows) + "; use shorter windows");
    add(out, view_of(positions).block(c.arch.position_offset + first, out.rows, 0, out.cols));
}

GPTQ_INLINE embedding load_embedding(const model_config& c, const weight_reader& weights) {
    const tensor_names& names = c.arch.names;
    const bool stored = weights.contains(std::string(names.embedding) + ".weight");
    const std::string_view name = c.tied_embeddings && !stored ? names.head : names.embedding;
    embedding loaded;
    loaded.tokens = weights.read_table(std::string(name), c.vocab_size, c.embedding_size);
    if (!names.positions.empty())
        loaded.positions =
            weights.matrix(std::string(names.positions), c.max_positions + c.arch.position_offset, c.hidden_size);
    if (c.embedding_size != c.hidden_size)
        loaded.project_in = weights.read_linear(std::string(names.project_in), c.hidden_size, c.embedding_size, false);
    return loaded;
}

GPTQ_INLINE embedding load_embedding(const model_config& c, const io::model_folder& folder) {
    return load_embedding(c, weight_reader(folder));
}

GPTQ_INLINE activations embed(const model_config& c, const embedding& table, std::span<const std::int32_t> ids,
                              std::size_t window_length) {
    if (window_length == 0 || ids.size() % window_length != 0)
        throw shape_error(std::to_string(ids.size()) + " tokens do not make whole windows of " +
                          std::to_string(window_length));
    activations hidden{make_tensor2<float>(ids.size(), c.hidden_size), window_length};
    for (std::size_t first = 0; first < ids.size(); first += window_length)
        table.look_up(c, ids.subspan(first, window_length), 0,
                      view_of(hidden.states).block(first, window_length, 0, c.hidden_size));
    return hidden;
}

}  // namespace gptq::model
