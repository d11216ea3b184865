// Products by the decode kernel for any number of rows, and what goes before and after it.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>

#include <gptq/backends/cuda/context.hpp>
#include <gptq/backends/cuda/decode_kernel.hpp>
#include <gptq/backends/cuda/fragment_order.hpp>
#include <gptq/concepts.hpp>
#include <gptq/error.hpp>
#include <gptq/half.hpp>
#include <gptq/matrix_view.hpp>

namespace gptq::cuda {

/// Inputs in slot order: sorted by group, zeros where a slot is empty. A thread for each.
template <tensor_element T>
struct gather_inputs_kernel {
    static constexpr std::size_t block_threads = 256;
    const std::int32_t* features;  ///< [slots], see slot_order
    matrix_view<const T> X;        ///< [M, K]
    matrix_view<T> gathered;       ///< [M, slots]

    constexpr launch_shape launch() const {
        return {detail::ceil_div(gathered.rows * gathered.cols, block_threads), block_threads};
    }

    template <kernel_context Context>
    constexpr void operator()(Context& ctx) const {
        const std::size_t i = ctx.block() * ctx.threads() + ctx.thread();
        if (i >= gathered.rows * gathered.cols) return;
        const std::size_t row = i / gathered.cols, slot = i % gathered.cols;
        const std::int32_t k = features[slot];
        gathered(row, slot) = k == slot_order::empty ? T{} : X(row, static_cast<std::size_t>(k));
    }
};

/// Y = the sum of the parts, in their order. A thread for each output.
template <tensor_element T>
struct sum_parts_kernel {
    static constexpr std::size_t block_threads = 256;
    matrix_view<const float> partial;  ///< [parts M, N]
    matrix_view<T> Y;                  ///< [M, N]

    constexpr launch_shape launch() const { return {detail::ceil_div(Y.rows * Y.cols, block_threads), block_threads}; }

    template <kernel_context Context>
    constexpr void operator()(Context& ctx) const {
        const std::size_t i = ctx.block() * ctx.threads() + ctx.thread();
        if (i >= Y.rows * Y.cols) return;
        const std::size_t row = i / Y.cols, n = i % Y.cols;
        float sum = 0.0f;
        for (std::size_t part = row; part < partial.rows; part += Y.rows) sum += partial(part, n);
        Y(row, n) = T{static_cast<std::uint16_t>(ctx.template narrow_pair<T>(sum, 0.0f))};
    }
};

/// The rows that one launch of the decode kernel takes at most.
inline constexpr std::size_t decode_rows = 32;

/// Into how many parts to split a layer for a launch of up to `blocks` blocks; parts cost a second kernel, so a layer
/// of more strips is not split. Each warp of a part has a tile at least.
constexpr std::size_t decode_parts(const fragment_shape& shape, std::size_t blocks) {
    const std::size_t wanted = blocks / shape.strips();
    return std::clamp(wanted, std::size_t{1}, std::max(shape.tiles / 4, std::size_t{1}));
}

/// True if the decode kernel can take inputs as they are, and they need not be gathered first: features lie in their
/// slots and rows begin and end at multiples of 16 bytes.
template <tensor_element T>
bool usable_in_place(const slot_order& order, matrix_view<const T> X) {
    return order.natural && X.cols % 8 == 0 && X.ld % 8 == 0 && reinterpret_cast<std::uintptr_t>(X.data) % 16 == 0;
}

namespace detail {

template <int Bits, tensor_element T, std::size_t TokenTiles, class Launcher>
void decode_tiles(const Launcher& launch, const fragment_view& weights, matrix_view<const T> X, matrix_view<T> Y,
                  matrix_view<float> partial) {
    const decode_kernel<Bits, T, TokenTiles> kernel{weights, X, Y, partial};
    launch(kernel.launch(), kernel);
}

template <int Bits, tensor_element T, class Launcher>
void decode_some(const Launcher& launch, const fragment_view& weights, matrix_view<const T> X, matrix_view<T> Y,
                 matrix_view<float> partial) {
    if (X.rows <= 8)
        decode_tiles<Bits, T, 1>(launch, weights, X, Y, partial);
    else if (X.rows <= 16)
        decode_tiles<Bits, T, 2>(launch, weights, X, Y, partial);
    else
        decode_tiles<Bits, T, 4>(launch, weights, X, Y, partial);
    if (partial.rows == 0) return;
    const sum_parts_kernel<T> sum{partial, Y};
    launch(sum.launch(), sum);
}

inline void check_decode(const fragment_shape& shape, std::size_t slots, std::size_t rows, extent2 Y, std::size_t parts,
                         extent2 workspace) {
    if (slots <= shape.slots() && Y == extent2{rows, shape.out_features} && parts > 0 &&
        (parts == 1 || (workspace.rows >= parts * std::min(rows, decode_rows) && workspace.cols == Y.cols)))
        return;
    throw shape_error("decode: X " + shape_string(rows, slots) + " times a layer of " +
                      std::to_string(shape.out_features) + " output features in " + std::to_string(shape.slots()) +
                      " slots into Y " + shape_string(Y.rows, Y.cols) + ", in " + std::to_string(parts) +
                      " parts with a workspace " + shape_string(workspace.rows, workspace.cols));
}

}  // namespace detail

/// Y = X Wq' with `launch`, a device_launcher or a host_launcher; all memory is that of its kernels. Any number of
/// rows, 32 at a time; many are better served by dequantize_kernel.hpp. Throws shape_error where shapes do not fit
/// together.
///   X [M, K or slots] is in slot order: see gather_inputs_kernel and usable_in_place.
///   Y [M, N]
///   parts: see decode_parts; workspace [parts min(M, 32), N], empty for one part.
template <int Bits, tensor_element T, class Launcher>
void decode(const Launcher& launch, const fragment_view& weights, matrix_view<const T> X, matrix_view<T> Y,
            std::size_t parts = 1, matrix_view<float> workspace = {}) {
    detail::check_decode(weights.shape, X.cols, X.rows, extent2{Y.rows, Y.cols}, parts,
                         extent2{workspace.rows, workspace.cols});
    for (std::size_t row = 0; row < X.rows; row += decode_rows) {
        const std::size_t rows = std::min(X.rows - row, decode_rows);
        const auto partial = parts == 1 ? matrix_view<float>() : workspace.block(0, parts * rows, 0, workspace.cols);
        detail::decode_some<Bits, T>(launch, weights, X.block(row, rows, 0, X.cols), Y.block(row, rows, 0, Y.cols),
                                     partial);
    }
}

}  // namespace gptq::cuda
