// From token ids to the states that the first block reads.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include <gptq/matrix_view.hpp>
#include <gptq/model/buffers.hpp>
#include <gptq/model/model_config.hpp>
#include <gptq/model/table.hpp>
#include <gptq/model/weights.hpp>
#include <gptq/xtensor/adapt.hpp>

namespace gptq::model {

/// The states of some windows of tokens, one after the other: what goes from block to block.
struct activations {
    tensor2<float> states;          ///< [windows * window_length, hidden_size]
    std::size_t window_length = 0;  ///< tokens of a window; windows do not see each other
    block_buffers buffers = {};     ///< kept from block to block

    std::size_t windows() const { return window_length == 0 ? 0 : states.shape()[0] / window_length; }
};

/// The tables that tokens, and for some architectures positions, are looked up in.
struct embedding {
    table tokens;                                          ///< [vocab_size, embedding_size]
    tensor2<float> positions = make_tensor2<float>(0, 0);  ///< [max_positions + offset, hidden_size], or empty
    linear project_in;                                     ///< [hidden_size, embedding_size], or empty

    /// Writes the states of tokens at positions first_position, first_position + 1, ... into out [tokens, hidden].
    /// Throws shape_error for a token outside the vocabulary, or a position that the model has no vector for.
    void look_up(const model_config& c, std::span<const std::int32_t> ids, std::size_t first_position,
                 matrix_view<float> out) const;

 private:
    void look_up_tokens(const model_config& c, std::span<const std::int32_t> ids, matrix_view<float> out) const;

    void add_positions(const model_config& c, std::size_t first, matrix_view<float> out) const;
};

/// Reads the tables. Where embeddings are tied to the head, either of the two tensors may be the one that is stored.
embedding load_embedding(const model_config& c, const weight_reader& weights);
embedding load_embedding(const model_config& c, const io::model_folder& folder);

/// The states of all windows of `window_length` tokens that `ids` consists of. Throws shape_error where the tokens do
/// not fill the last window, and as embedding::look_up.
activations embed(const model_config& c, const embedding& table, std::span<const std::int32_t> ids,
                  std::size_t window_length);

}  // namespace gptq::model

#ifndef GPTQ_COMPILED
#include <gptq/model/impl/embedding.hpp>
#endif
