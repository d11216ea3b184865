// From the states that the last block leaves to logits.
#pragma once

#include <optional>

#include <gptq/matrix_view.hpp>
#include <gptq/model/embedding.hpp>
#include <gptq/model/model_config.hpp>
#include <gptq/model/weights.hpp>

namespace gptq::model {

/// The last norm, and for some architectures a projection: what comes between the blocks and the head.
struct head_inputs {
    std::optional<norm_layer> norm;
    linear project_out;  ///< [embedding_size, hidden_size], or empty

    /// hidden [tokens, hidden_size] to what the head reads [tokens, embedding_size].
    tensor2<float> operator()(const model_config& c, matrix_view<const float> hidden) const;
};

/// Reads the last norm and the projection.
head_inputs load_head_inputs(const model_config& c, const weight_reader& weights);
head_inputs load_head_inputs(const model_config& c, const io::model_folder& folder);

/// Reads the head [vocab_size, embedding_size], or nothing where it is the table of the embedding.
std::optional<linear> load_head(const model_config& c, const weight_reader& weights);
std::optional<linear> load_head(const model_config& c, const io::model_folder& folder);

/// How a head that is not quantized in the files is held: as it is, or rounded to 8 bits in groups of 64 when it is
/// read. A table of tens of thousands of tokens is a large part of what a small model reads for each token.
enum class head_form { stored, eight_bits };

/// `head` as load_head read it, rounded to 8 bits unless it is quantized already; held in `form`.
linear round_head(std::optional<linear> head, const embedding& table, quantized_form form);

}  // namespace gptq::model

#ifndef GPTQ_COMPILED
#include <gptq/model/impl/head.hpp>
#endif
