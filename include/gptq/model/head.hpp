// From the states that the last block leaves to logits.
#pragma once

#include <optional>
#include <span>
#include <type_traits>
#include <utility>

#include <gptq/matrix_view.hpp>
#include <gptq/model/backend.hpp>
#include <gptq/model/embedding.hpp>
#include <gptq/model/model_config.hpp>
#include <gptq/model/weights.hpp>

namespace gptq::model {

/// The last norm, and for some architectures a projection: what comes between the blocks and the head.
template <class Weights, class Norm>
struct basic_head_inputs {
    std::optional<Norm> norm;
    Weights project_out;  ///< [embedding_size, hidden_size], or empty
};

using stored_head_inputs = basic_head_inputs<stored_layer, norm_layer>;

template <class B>
using head_inputs_of = basic_head_inputs<typename B::weights, typename B::norm>;

/// Reads the last norm and the projection.
stored_head_inputs read_head_inputs(const model_config& c, const weight_reader& weights);

template <ModelBackend B>
head_inputs_of<B> hold_head_inputs(const B& backend, stored_head_inputs&& stored) {
    head_inputs_of<B> held;
    if (stored.norm) held.norm.emplace(backend.hold(*std::move(stored.norm)));
    if (stored.project_out.weights.index() != 0) held.project_out = backend.hold(std::move(stored.project_out));
    return held;
}

/// What the head reads [tokens, embedding_size] of hidden [tokens, hidden_size].
template <ModelBackend B>
room_of<B, typename B::activation> compute_head_inputs(const B& backend, const head_inputs_of<B>& layers,
                                                       const model_config& c, matrix_view<const float> hidden) {
    using number = typename B::activation;
    auto normed = backend.template room<number>(hidden.rows, c.hidden_size);
    if (layers.norm)
        backend.normalize(*layers.norm, hidden, normed.view());
    else
        backend.convert(hidden, normed.view());
    if (!layers.project_out) return normed;
    auto projected = backend.template room<number>(hidden.rows, c.embedding_size);
    const output_of<B> only{layers.project_out, projected.view()};
    backend.multiply(std::as_const(normed).view(), std::span<const output_of<B>>(&only, 1));
    return projected;
}

/// Reads the head [vocab_size, embedding_size], or nothing where it is the table of the embedding.
std::optional<stored_layer> read_head(const model_config& c, const weight_reader& weights);

/// How a head that is not quantized in the files is held: as it is, or rounded to 8 bits in groups of 64 when it is
/// read. A table of tens of thousands of tokens is a large part of what a small model reads for each token.
enum class head_form { stored, eight_bits };

/// `head` as read_head read it, rounded to 8 bits unless it is quantized already.
stored_layer round_head(std::optional<stored_layer> head, const table& tokens);

}  // namespace gptq::model

#ifndef GPTQ_COMPILED
#include <gptq/model/impl/head.hpp>
#endif
