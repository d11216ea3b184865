// DifferentiableModelBackend: a ModelBackend whose operations have their adjoints beside them, for the way back through
// a model.
#pragma once

#include <concepts>
#include <cstddef>
#include <span>

#include <gptq/matrix_view.hpp>
#include <gptq/model/architecture.hpp>
#include <gptq/model/attention_shape.hpp>
#include <gptq/model/backend.hpp>

namespace gptq::model {

/// A linear layer in the memory of a backend, and the gradient of its outputs.
template <class Weights>
struct linear_gradient {
    const Weights& layer;
    matrix_view<const float> dy;  ///< [tokens, out_features]
};

template <class B>
using gradient_of = linear_gradient<typename B::weights>;

// ---------------------------------------------------------------------------------------------------------------------
// DifferentiableModelBackend<B>: L is any number that depends on what an operation of ModelBackend writes. dx is the
// matrix of the derivatives of L by the elements of x, and has the shape of x. Gradients are float, in B's memory; what
// the operation has read is as it was. The numbers in brackets are those of ModelBackend's sentences.
//  1. [5] multiply_adjoint(outputs, dx): dx = sum of dy (W + terms) over the outputs, all of layers with the same x.
//     Layers are dense, as in 13; others are refused by unsupported_error.         dy [T, N]  W [N, K]  dx [T, K]
//     multiply_adjoint(dlogits, table, dx) likewise for a table.
//  2. [5] weight_gradient(dy, x, dW): dW = dy' x.                                  dy [T, N]  x [T, K]  dW [N, K]
//  3. [7] normalize_adjoint(norm, x, dy, dx, sums): dx of y = norm of the rows of x, x of float or B::activation; dx may
//     be dy. sums, unless it is empty, becomes the gradients of the norm's weight and bias.   sums [2, features]
//  4. [8] rotate_adjoint(cosines, sines, heads, dx): dx, which comes in as dy, of a rotation in place.
//  5. [9] attend_adjoint(shape, q, k, v, dout, scratch, dq, dk, dv): all three, none of them the memory of dout.
//  6. [10] activate_adjoint(f, x, dx): dx, which comes in as dy, of y = f(x). gate_adjoint(f, x, y, dz, dx, dy): dx and
//     dy of z = f(x) y. cap_adjoint(c, y, dx): dx, which comes in as dy, of y = cap(c, x).
//  7. scale(factor, x): x = factor x, of float: on both ways where a branch is multiplied before it is added [17].
//     copy(x, y): y = x, of float.
//  8. distill(reference, factor, logits) is the sum over the rows of KL(softmax(reference) || softmax(logits)), in nats.
//     logits become the gradient of factor times it.                                                [tokens, vocab_size]
// Sums over rows and products may be rounded as floats.
// ---------------------------------------------------------------------------------------------------------------------
template <class B>
concept DifferentiableModelBackend = ModelBackend<B> &&
    requires(const B& b, std::size_t n, matrix_view<float> dx, matrix_view<const float> dy,
             matrix_view<const typename B::activation> x, typename B::weights w, const typename B::norm& norm,
             const typename B::table& tokens, typename B::scratch& scratch, attention_shape shape, mlp_activation f) {
    b.multiply_adjoint(std::span<const gradient_of<B>>(), dx);
    b.multiply_adjoint(dy, tokens, dx);
    b.weight_gradient(dy, x, dx);
    b.normalize_adjoint(norm, x, dy, dx, dx);
    b.normalize_adjoint(norm, dy, dy, dx, dx);
    b.rotate_adjoint(dy, dy, rotary_heads{n}, dx);
    b.attend_adjoint(shape, x, x, x, dy, scratch, dx, dx, dx);
    b.activate_adjoint(f, x, dx);
    b.gate_adjoint(f, x, x, dy, dx, dx);
    b.cap_adjoint(1.0f, dy, dx);
    b.scale(1.0f, dx);
    b.copy(dy, dx);
    { b.distill(dy, 1.0f, dx) } -> std::same_as<double>;
};

}  // namespace gptq::model
