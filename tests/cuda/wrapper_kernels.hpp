// A kernel for each function of kernel_context. It runs on the host and on a device, and has to leave the same bits.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>

#include <gptq/backends/cuda/context.hpp>
#include <gptq/half.hpp>
#include <gptq/matrix_view.hpp>

namespace gptq_test {

using gptq::matrix_view;
using gptq::cuda::kernel_context;

/// What all of them work on: a row of words for each thread of the launch.
struct wrapper_kernel {
    static constexpr std::size_t block_threads = 64;
    static constexpr std::size_t in_words = 8, out_words = 8;
    matrix_view<const std::uint32_t> in;  // [threads of all blocks, in_words]
    matrix_view<std::uint32_t> out;       // [threads of all blocks, out_words]

    template <class Context>
    static constexpr std::size_t row(Context& ctx) {
        return ctx.block() * ctx.threads() + ctx.thread();
    }
};

struct tells_who_it_is : wrapper_kernel {
    static constexpr const char* name = "thread, block, warp, lane";
    template <kernel_context Context>
    constexpr void operator()(Context& ctx) const {
        const std::size_t r = row(ctx);
        const std::size_t numbers[] = {ctx.thread(), ctx.threads(), ctx.warp(), ctx.lane(), ctx.block(), ctx.blocks()};
        for (std::size_t i = 0; i < 6; ++i) out(r, i) = static_cast<std::uint32_t>(numbers[i]);
    }
};

struct passes_through_shared : wrapper_kernel {
    static constexpr const char* name = "shared, barrier, warp_barrier";
    template <kernel_context Context>
    constexpr void operator()(Context& ctx) const {
        const auto words = ctx.template shared<std::uint32_t>(64, block_threads);
        words[ctx.thread()] = in(row(ctx), 0);
        ctx.barrier();
        out(row(ctx), 0) = words[block_threads - 1 - ctx.thread()];
        ctx.barrier();
        words[ctx.thread()] = in(row(ctx), 1);
        ctx.warp_barrier();
        out(row(ctx), 1) = words[ctx.thread() ^ 5];
    }
};

struct copies_asynchronously : wrapper_kernel {
    static constexpr const char* name = "copy_async, commit_copies, wait_copies";
    template <kernel_context Context>
    constexpr void operator()(Context& ctx) const {
        const std::size_t r = row(ctx), valid = ctx.lane() % 17;
        const auto words = ctx.template shared<std::uint32_t>(0, 8 * block_threads) + 8 * ctx.thread();
        ctx.template copy_async<16>(words, &in(r, 0), 16);
        ctx.commit_copies();
        ctx.template copy_async<16>(words + 4, &in(r, 4), valid);
        ctx.commit_copies();
        ctx.template wait_copies<1>();
        for (std::size_t i = 0; i < 4; ++i) out(r, i) = words[i];
        ctx.template wait_copies<0>();
        for (std::size_t i = 4; i < 8; ++i) out(r, i) = words[i];
    }
};

struct shuffles : wrapper_kernel {
    static constexpr const char* name = "shuffle, shuffle_xor";
    template <kernel_context Context>
    constexpr void operator()(Context& ctx) const {
        const std::size_t r = row(ctx);
        out(r, 0) = ctx.shuffle(in(r, 0), (ctx.lane() * 7 + 3) % 32);
        out(r, 1) = ctx.shuffle(in(r, 1), 11);
        out(r, 2) = ctx.shuffle_xor(in(r, 2), 1);
        out(r, 3) = ctx.shuffle_xor(in(r, 3), 22);
    }
};

struct loads_matrices : wrapper_kernel {
    static constexpr const char* name = "load_matrix_x4, load_matrix_x4_transposed";
    template <kernel_context Context>
    constexpr void operator()(Context& ctx) const {
        const std::size_t r = row(ctx), other = ctx.warp() * 32 + (ctx.lane() ^ 9);
        const auto words = ctx.template shared<std::uint32_t>(0, 4 * block_threads);
        for (std::size_t i = 0; i < 4; ++i) words[4 * ctx.thread() + i] = in(r, i);
        ctx.warp_barrier();
        const auto loaded = ctx.load_matrix_x4(words + 4 * other);
        for (std::size_t i = 0; i < 4; ++i) out(r, i) = loaded[i];
        const auto transposed = ctx.load_matrix_x4_transposed(words + 4 * other);
        for (std::size_t i = 0; i < 4; ++i) out(r, 4 + i) = transposed[i];
    }
};

/// Of whole numbers up to 8: all sums are exact, whatever their order.
template <gptq::cuda::tensor_element T>
struct multiplies_matrices : wrapper_kernel {
    static constexpr const char* name = "mma_16x8x16";
    template <kernel_context Context>
    constexpr void operator()(Context& ctx) const {
        const std::size_t r = row(ctx);
        const auto pair = [&](std::size_t i) {
            const auto whole = [&](std::uint32_t bits) { return static_cast<float>(bits & 15u) - 7.0f; };
            return ctx.template narrow_pair<T>(whole(in(r, i)), whole(in(r, i) >> 16));
        };
        gptq::cuda::accumulators sums{1.0f, 2.0f, 3.0f, static_cast<float>(ctx.lane())};
        ctx.template mma_16x8x16<T>(sums, {pair(0), pair(1), pair(2), pair(3)}, {pair(4), pair(5)});
        for (std::size_t i = 0; i < 4; ++i) out(r, i) = std::bit_cast<std::uint32_t>(sums[i]);
    }
};

template <gptq::cuda::tensor_element T>
struct rounds : wrapper_kernel {
    static constexpr const char* name = "fma_pairs, narrow_pair, widen, put_bits";
    template <kernel_context Context>
    constexpr void operator()(Context& ctx) const {
        const std::size_t r = row(ctx);
        // Numbers from 2^-7 to 2^8, with all bits of the mantissa at random.
        const auto number = [&](std::uint32_t bits) {
            return std::bit_cast<float>((bits & 0x807fffffu) | (120u + (bits >> 23 & 15u)) << 23);
        };
        const auto pair = [&](std::size_t i) {
            return ctx.template narrow_pair<T>(number(in(r, i)), number(in(r, i) * 2654435761u));
        };
        out(r, 0) = pair(0);
        out(r, 4) = ctx.put_bits(in(r, 0), in(r, 1), in(r, 2));
        out(r, 1) = ctx.template fma_pairs<T>(pair(1), pair(2), pair(3));
        out(r, 2) = std::bit_cast<std::uint32_t>(ctx.widen(T{static_cast<std::uint16_t>(pair(4) & 0xffffu)}));
        out(r, 3) =
            ctx.template narrow_pair<T>(number(in(r, 5)) * 1e-7f, number(in(r, 5)) * 1e-5f);  // subnormal halves
    }
};

}  // namespace gptq_test
