// prepare and matmul for quantized layers in xtensor containers.
#pragma once

#include <cstddef>
#include <cstdint>

#include <gptq/concepts.hpp>
#include <gptq/matmul.hpp>
#include <gptq/matrix_like.hpp>
#include <gptq/weight_memory.hpp>
#include <gptq/xtensor/adapt.hpp>
#include <gptq/xtensor/pack.hpp>
#include <gptq/xtensor/quantized.hpp>
#ifdef GPTQ_COMPILED
#include <gptq/backends/cpu/usual.hpp>
#endif

namespace gptq {

/// Repacks a layer once for multiplication with inputs held as A. A layer with levels of its own keeps these levels
/// exactly. Layers that are used one after the other share one `memory`, which makes products of one row faster;
/// without it, the layer has memory of its own. Throws shape_error for a g_idx out of range, unsupported_error for bits
/// other than 2 to 8.
template <Activation A>
prepared<A> prepare(const quantized_layer& q, weight_memory* memory = nullptr) {
    return prepared<A>(q.view(), q.bits, memory);
}

/// The same for a layer whose scheme is known: only the kernels for its number of bits are compiled.
template <Activation A, Scheme S>
prepared<A> prepare(const quantized<S>& q, weight_memory* memory = nullptr) {
    const quantized_layer& layer = q;
    return prepared<A>(layer.view(), known_grid<S::bits, AffineGrid<typename S::grid>>{}, memory);
}

/// The same from the tensors of a checkpoint of layout L. A few output features are unpacked at a time where L allows
/// it. Throws as unpack.
template <Activation A, PackLayout L>
prepared<A> prepare(const packed<L>& t, weight_memory* memory = nullptr) {
    const auto words = detail::as_words(t.qweight);
    if constexpr (requires { L::code_block(words, std::size_t{}, std::size_t{}); })
        return detail::with_parameters<L>(t, [&]<int Bits>(const quantized_layer& q) {
            const auto codes_of = [&](std::size_t first, matrix_view<std::uint8_t> room) {
                L::template unpack_codes<Bits>(L::code_block(words, first, room.rows), room);
                return matrix_view<const std::uint8_t>(room);
            };
            const const_quantized_view view = q.view();
            return prepared<A>(t.bits, view.scales, view.zeros, view.g_idx, codes_of, memory);
        });
    else
        return prepare<A>(unpack<L>(t), memory);
}

/// X Wq': [tokens, out_features] for X [tokens, in_features], any readable matrix; see prepared::multiply for
/// epilogues. Throws shape_error where they do not fit.
template <ReadableMatrix M, Activation A, class Epilogue = no_epilogue>
tensor2<float> matmul(const M& X, const prepared<A>& m, const matmul_options& options = {},
                      const Epilogue& epilogue = {}) {
    const readable_matrix<float, M> inputs(X, "matmul: X");
    auto Y = make_tensor2<float>(inputs.view().rows, m.out_features());
    m.multiply(inputs.view(), view_of(Y), options, epilogue);
    return Y;
}

}  // namespace gptq
