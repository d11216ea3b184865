// Causal attention of consecutive tokens over themselves and what came before them.
#pragma once

#include <cstddef>

#include <gptq/matrix_view.hpp>
#include <gptq/model/buffers.hpp>
#include <gptq/model/model_config.hpp>

namespace gptq::model {

/// out = softmax(scale · q kᵀ, causal) v for every head; heads / kv_heads query heads share one key and value head.
/// The rows of q belong to the last positions of k and v. A token sees `window` positions up to and including its own,
/// or all of them if `window` is 0. Needs memory for six rows of scores a head, and for another k if there are many rows.
/// q, out [tokens, heads * head_dim]   k, v [past + tokens, kv_heads * head_dim]
void attend(const model_config& c, std::size_t window, matrix_view<const float> q, matrix_view<const float> k,
            matrix_view<const float> v, scratch_matrix& memory, matrix_view<float> out);

}  // namespace gptq::model

#ifndef GPTQ_COMPILED
#include <gptq/model/impl/attention.hpp>
#endif
