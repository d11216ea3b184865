// prepare and matmul for quantized layers in xtensor containers.
#pragma once

#include <gptq/backends/cpu/cpu_backend.hpp>
#include <gptq/matmul.hpp>
#include <gptq/matrix_like.hpp>
#include <gptq/xtensor/adapt.hpp>
#include <gptq/xtensor/quantized.hpp>

namespace gptq {

/// Repacks a layer once for multiplication with inputs held as A. The grid must be affine, as in every file format.
/// Throws shape_error for a g_idx out of range.
template <Activation A>
prepared<A> prepare(const quantized_layer& q) {
    return prepared<A>(q.view());
}

/// X Wq': [tokens, out_features] for X [tokens, in_features], any readable matrix. Throws shape_error where they do not
/// fit.
template <ReadableMatrix M, Activation A, Backend B = cpu_backend>
tensor2<float> matmul(const M& X, const prepared<A>& m, const B& backend = {}) {
    const readable_matrix<float, M> inputs(X, "matmul: X");
    auto Y = make_tensor2<float>(inputs.view().rows, m.out_features());
    m.multiply(backend, inputs.view(), view_of(Y));
    return Y;
}

}  // namespace gptq
