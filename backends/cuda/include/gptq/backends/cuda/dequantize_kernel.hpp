// For many rows: weights in fragment order become a slab of half or bfloat16 weights, which a dense product takes.
#pragma once

#include <cstddef>
#include <cstdint>

#include <gptq/backends/cuda/context.hpp>
#include <gptq/backends/cuda/fragment_order.hpp>
#include <gptq/matrix_view.hpp>

namespace gptq::cuda {

/// slab = the weights of output features [64 first_strip, 64 first_strip + slab.rows), each rounded to T once. A warp a
/// tile, which it puts together in shared memory to write whole rows of it. Columns are slots, those that are empty
/// hold finite numbers: X in slot order (decode.hpp) times slab' is Y.
template <int Bits, tensor_element T>
struct dequantize_kernel {
    static_assert(has_fragments(Bits));
    static constexpr std::size_t warps = 4;
    static constexpr std::size_t block_threads = warps * warp_size;
    fragment_view weights;
    std::size_t first_strip;
    matrix_view<T> slab;  ///< [rows, slots], its rows beginning at multiples of 16 bytes

    constexpr launch_shape launch() const {
        return {detail::ceil_div(tiles(), warps), block_threads, warps * tile_bytes};
    }

    template <kernel_context Context>
    constexpr void operator()(Context& ctx) const {
        const std::size_t tile = ctx.block() * warps + ctx.warp();
        if (tile >= tiles()) return;
        const std::size_t strip = tile / weights.shape.tiles, column = tile % weights.shape.tiles;
        for (std::size_t s = 0; s < tile_steps; ++s) put_step(ctx, first_strip + strip, column, s);
        ctx.warp_barrier();
        store(ctx, strip * strip_features, column * tile_slots);
    }

 private:
    // Rows lie apart such that a warp that puts down 8 of them writes to all banks.
    static constexpr std::size_t stride = tile_slots + 8;
    static constexpr std::size_t tile_bytes = strip_features * stride * sizeof(T);

    constexpr std::size_t tiles() const { return detail::ceil_div(slab.rows, strip_features) * weights.shape.tiles; }

    template <class U, class Context>
    static constexpr auto tile_memory(Context& ctx) {
        return ctx.template shared<U>(ctx.warp() * tile_bytes, tile_bytes / sizeof(U));
    }

    /// A lane's words where they lie in memory.
    struct words_in_place {
        const std::uint32_t* first;
        constexpr std::uint32_t operator[](std::size_t i) const { return first[i / 4 * warp_size * 4 + i % 4]; }
    };

    /// Step s of a tile: 16 slots, all of one group, of 64 output features.
    template <class Context>
    constexpr void put_step(Context& ctx, std::size_t strip, std::size_t column, std::size_t s) const {
        const std::size_t tile = strip * weights.shape.tiles + column;
        const words_in_place words{weights.words + (tile * Bits * warp_size + ctx.lane()) * 4};
        const std::size_t group = weights.shape.group_of_step(column * tile_steps + s);
        const std::size_t parameters = (strip * weights.shape.groups + group) * strip_features;
        for (std::size_t m = 0; m < strip_fragments; ++m)
            for (std::size_t upper = 0; upper < 2; ++upper) {
                const std::size_t parameter = parameters + lane_parameter(ctx.lane(), m) + upper;
                const float scale = ctx.widen(weights.scales[parameter]);
                const int zero = weights.zeros != nullptr ? weights.zeros[parameter] : 1 << (Bits - 1);
                for (std::size_t r = upper; r < 4; r += 2) {
                    const std::size_t pair = pair_index(m, s, r);
                    put_pair(ctx, position_of_pair(ctx.lane(), pair), code_pair<Bits>(words, pair), scale, zero);
                }
            }
    }

    template <class Context>
    static constexpr void put_pair(Context& ctx, pair_position at, std::uint32_t codes, float scale, int zero) {
        const auto value = [=](std::uint32_t code) {
            return scale * static_cast<float>(static_cast<int>(code) - zero);
        };
        tile_memory<std::uint32_t>(ctx)[(at.row * stride + at.slot) / 2] =
            ctx.template narrow_pair<T>(value(codes & 0xffffu), value(codes >> 16));
    }

    /// The tile to rows and columns of the slab from (row, slot) on.
    template <class Context>
    constexpr void store(Context& ctx, std::size_t row, std::size_t slot) const {
        constexpr std::size_t pieces = tile_slots / 8;
        const auto from = tile_memory<detail::quad>(ctx);
        for (std::size_t i = ctx.lane(); i < strip_features * pieces; i += warp_size) {
            const std::size_t r = i / pieces, piece = i % pieces;
            if (row + r < slab.rows)
                *reinterpret_cast<detail::quad*>(&slab(row + r, slot + 8 * piece)) = from[r * (stride / 8) + piece];
        }
    }
};

}  // namespace gptq::cuda
