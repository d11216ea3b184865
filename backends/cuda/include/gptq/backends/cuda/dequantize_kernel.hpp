// For many rows: weights in fragment order become a slab of half or bfloat16 weights, which a dense product takes.
#pragma once

#include <cstddef>
#include <cstdint>

#include <gptq/backends/cuda/context.hpp>
#include <gptq/backends/cuda/fragment_order.hpp>
#include <gptq/matrix_view.hpp>

namespace gptq::cuda {

/// slab = the weights of output features [64 first_strip, 64 first_strip + slab.rows), each rounded to T once. A warp a
/// tile. Columns are slots, those that are empty hold finite numbers: X in slot order (decode.hpp) times slab' is Y.
template <int Bits, tensor_element T>
struct dequantize_kernel {
    static_assert(has_fragments(Bits));
    static constexpr std::size_t warps = 4;
    static constexpr std::size_t block_threads = warps * warp_size;
    fragment_view weights;
    std::size_t first_strip;
    matrix_view<T> slab;  // [rows, slots], its rows beginning at multiples of 4 bytes

    constexpr launch_shape launch() const { return {detail::ceil_div(tiles(), warps), block_threads}; }

    template <kernel_context Context>
    constexpr void operator()(Context& ctx) const {
        const std::size_t tile = ctx.block() * warps + ctx.warp();
        if (tile < tiles()) write_tile(ctx, tile / weights.shape.tiles, tile % weights.shape.tiles);
    }

 private:
    constexpr std::size_t tiles() const { return detail::ceil_div(slab.rows, strip_features) * weights.shape.tiles; }

    /// A lane's words where they lie in memory.
    struct words_in_place {
        const std::uint32_t* first;
        constexpr std::uint32_t operator[](std::size_t i) const { return first[i / 4 * warp_size * 4 + i % 4]; }
    };

    /// `strip` counts from the first one of the slab.
    template <class Context>
    constexpr void write_tile(Context& ctx, std::size_t strip, std::size_t tile) const {
        const std::size_t index = (first_strip + strip) * weights.shape.tiles + tile;
        const words_in_place words{weights.words + (index * Bits * warp_size + ctx.lane()) * 4};
        for (std::size_t pair = 0; pair < lane_pairs; ++pair) {
            const pair_position at = position_of_pair(ctx.lane(), pair);
            const std::size_t row = strip * strip_features + at.row, slot = tile * tile_slots + at.slot;
            if (row < slab.rows) write_pair(ctx, row, slot, code_pair<Bits>(words, pair));
        }
    }

    template <class Context>
    constexpr void write_pair(Context& ctx, std::size_t row, std::size_t slot, std::uint32_t codes) const {
        const std::size_t n = first_strip * strip_features + row;
        const std::size_t group = weights.shape.group_of_step(slot / step_slots);
        const std::size_t parameter =
            (n / strip_features * weights.shape.groups + group) * strip_features + parameter_place(n % strip_features);
        const float scale = ctx.widen(weights.scales[parameter]);
        const int zero = weights.zeros != nullptr ? weights.zeros[parameter] : 1 << (Bits - 1);
        const auto value = [=](std::uint32_t code) {
            return scale * static_cast<float>(static_cast<int>(code) - zero);
        };
        const std::uint32_t pair = ctx.template narrow_pair<T>(value(codes & 0xffffu), value(codes >> 16));
        slab(row, slot) = T{static_cast<std::uint16_t>(pair & 0xffffu)};
        slab(row, slot + 1) = T{static_cast<std::uint16_t>(pair >> 16)};
    }
};

}  // namespace gptq::cuda
