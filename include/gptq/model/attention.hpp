// Causal attention of consecutive tokens over themselves and what came before them.
#pragma once

#include <cstddef>

#include <gptq/matrix_view.hpp>
#include <gptq/model/backend.hpp>
#include <gptq/model/buffers.hpp>

namespace gptq::model {

/// out = softmax(cap(scale · q kᵀ), causal) v for every head of one window: sentence 9 of ModelBackend, shape.queries =
/// q.rows and shape.keys = k.rows. Needs memory for six rows of scores a head, and for another k if there are many
/// rows.
/// q, out [tokens, heads * head_dim]   k, v [past + tokens, kv_heads * head_dim]
void attend(const attention_shape& shape, matrix_view<const float> q, matrix_view<const float> k,
            matrix_view<const float> v, scratch_matrix& memory, matrix_view<float> out);

}  // namespace gptq::model

#ifndef GPTQ_COMPILED
#include <gptq/model/impl/attention.hpp>
#endif
