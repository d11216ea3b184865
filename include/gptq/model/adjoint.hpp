// The adjoints of a model's operations on the CPU: the sentences of DifferentiableModelBackend, in float. dx is the
// gradient of x, of a number that depends on what the operation writes.
#pragma once

#include <cstddef>
#include <span>

#include <gptq/matrix_view.hpp>
#include <gptq/model/architecture.hpp>
#include <gptq/model/attention_shape.hpp>
#include <gptq/model/buffers.hpp>
#include <gptq/model/differentiable_backend.hpp>
#include <gptq/model/linear.hpp>
#include <gptq/model/norm_layer.hpp>
#include <gptq/model/table.hpp>

namespace gptq::model {

/// Sentence 1: dx = sum of dy (W + terms) over layers with the same inputs. Throws unsupported_error for layers that
/// are held as codes.                                                                  dy [T, N]  W [N, K]  dx [T, K]
void multiply_adjoint(std::span<const linear_gradient<linear>> outputs, matrix_view<float> dx);

/// dx = dy T, rows of T widened some at a time.                                        dy [T, N]  table [N, K]  dx [T, K]
void multiply_adjoint(matrix_view<const float> dy, const table& tokens, matrix_view<float> dx);

/// Sentence 3. dx may be dy.                                        x, dy, dx [tokens, features]  sums [2, features] or empty
void normalize_adjoint(const norm_layer& norm, matrix_view<const float> x, matrix_view<const float> dy,
                       matrix_view<float> dx, matrix_view<float> sums);

/// Sentence 4: turns back what rotate() turns.                cosines, sines [positions, n / 2]  dx [rows, heads * head_dim]
void rotate_adjoint(matrix_view<const float> cosines, matrix_view<const float> sines, const rotary_heads& heads,
                    matrix_view<float> dx);

/// Sentence 5 for one window, shape.queries = q.rows and shape.keys = k.rows. Some queries of a head at a time; needs
/// memory for their scores, three times.
/// q, dout, dq [tokens, heads * head_dim]   k, v, dk, dv [past + tokens, kv_heads * head_dim]
void attend_adjoint(const attention_shape& shape, matrix_view<const float> q, matrix_view<const float> k,
                    matrix_view<const float> v, matrix_view<const float> dout, scratch_matrix& memory,
                    matrix_view<float> dq, matrix_view<float> dk, matrix_view<float> dv);

/// Sentence 6: dx, which comes in as dy, of y = f(x).                                               x, dx of equal shapes
void activate_adjoint(mlp_activation f, matrix_view<const float> x, matrix_view<float> dx);

/// dx and dy of z = f(x) y.                                                                       all of equal shapes
void gate_adjoint(mlp_activation f, matrix_view<const float> x, matrix_view<const float> y, matrix_view<const float> dz,
                  matrix_view<float> dx, matrix_view<float> dy);

/// dx, which comes in as dy, of y = cap tanh(x / cap).                                            y, dx of equal shapes
void cap_adjoint(float cap, matrix_view<const float> y, matrix_view<float> dx);

/// Sentence 8: the sum of KL(softmax(reference) || softmax(logits)) over the rows, in nats; logits become the gradient
/// of factor times it.                                                            reference, logits [tokens, vocab_size]
double distill(matrix_view<const float> reference, float factor, matrix_view<float> logits);

}  // namespace gptq::model

#ifndef GPTQ_COMPILED
#include <gptq/model/impl/adjoint.hpp>
#endif
