// From token ids to the states that the first block reads.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <utility>

#include <gptq/error.hpp>
#include <gptq/matrix_view.hpp>
#include <gptq/model/backend.hpp>
#include <gptq/model/model_config.hpp>
#include <gptq/model/stored_layer.hpp>
#include <gptq/model/weights.hpp>

namespace gptq::model {

/// The tables that tokens, and for some architectures positions, are looked up in, as the files have them.
struct stored_embedding {
    table tokens;                                          ///< [vocab_size, embedding_size]
    stored_layer project_in;                               ///< [hidden_size, embedding_size], or none
    tensor2<float> positions = make_tensor2<float>(0, 0);  ///< [max_positions + offset, hidden_size], or empty
};

/// Reads the tables. Where embeddings are tied to the head, either of the two tensors may be the one that is stored.
stored_embedding read_embedding(const model_config& c, const weight_reader& weights);

namespace detail {

/// Throws shape_error for a token outside the vocabulary, or a position that the model has no vector for.
void check_tokens(const model_config& c, std::span<const std::int32_t> ids, std::size_t first_position);

}  // namespace detail

/// The tables in the memory of a backend.
template <ModelBackend B>
class embedding {
 public:
    embedding(const B& backend, stored_embedding&& stored) : tokens_(backend.hold(std::move(stored.tokens))) {
        if (stored.project_in.weights.index() != 0) project_in_ = backend.hold(std::move(stored.project_in));
        if (stored.positions.size() != 0) positions_ = backend.upload(view_of(std::as_const(stored.positions)));
    }

    /// [vocab_size, embedding_size]
    const typename B::table& tokens() const { return tokens_; }

    /// Writes the states of tokens into out [tokens, hidden]: windows of `window_length` tokens, each at positions
    /// first_position, first_position + 1, ... Throws shape_error for a token outside the vocabulary, or a position
    /// that the model has no vector for.
    void look_up(const B& backend, const model_config& c, std::span<const std::int32_t> ids, std::size_t window_length,
                 std::size_t first_position, matrix_view<float> out) const {
        for (std::size_t first = 0; first < ids.size(); first += window_length)
            detail::check_tokens(c, ids.subspan(first, window_length), first_position);
        if (project_in_)
            project(backend, c, ids, out);
        else
            backend.look_up(tokens_, ids, c.embedding_scale, out);
        const matrix_view<const float> positions = positions_.view();
        if (positions.rows != 0)
            backend.add(out, positions.block(c.arch.position_offset + first_position, window_length, 0, out.cols));
    }

 private:
    void project(const B& backend, const model_config& c, std::span<const std::int32_t> ids,
                 matrix_view<float> out) const {
        auto narrow = backend.template room<float>(ids.size(), c.embedding_size);
        auto inputs = backend.template room<typename B::activation>(ids.size(), c.embedding_size);
        backend.look_up(tokens_, ids, c.embedding_scale, narrow.view());
        backend.convert(narrow.view(), inputs.view());
        backend.multiply(std::as_const(inputs).view(), project_in_, out);
    }

    typename B::table tokens_;
    uploaded<B> positions_;  // [max_positions + offset, hidden_size], or empty
    typename B::weights project_in_;
};

/// read_embedding into the memory of a backend.
template <ModelBackend B>
embedding<B> load_embedding(const model_config& c, const io::model_folder& folder, const B& backend) {
    return embedding<B>(backend, read_embedding(c, weight_reader(folder)));
}

}  // namespace gptq::model

#ifndef GPTQ_COMPILED
#include <gptq/model/impl/embedding.hpp>
#endif
