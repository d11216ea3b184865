// THE page of the kernels: what the body of a kernel may use. A body is written once, as a function template over a
// context; host_context.hpp runs it on the host, device_context.hpp on a GPU.
//
//     struct scale {
//         static constexpr std::size_t block_threads = 128;
//         float factor;
//         matrix_view<float> row;  // [1, K]
//         template <kernel_context Context>
//         constexpr void operator()(Context& ctx) const {
//             const std::size_t k = ctx.block() * ctx.threads() + ctx.thread();
//             if (k < row.cols) row(0, k) *= factor;
//         }
//     };
//
// `constexpr` is what lets nvcc compile the body for the device (--expt-relaxed-constexpr), without any macro.
#pragma once

#include <array>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <string>

#include <gptq/error.hpp>
#include <gptq/half.hpp>

namespace gptq::cuda {

inline constexpr std::size_t warp_size = 32;

/// The shared memory that a block can have on every architecture from sm_80 on.
inline constexpr std::size_t largest_shared_bytes = 99 * 1024;

/// How many blocks of how many threads, and the shared memory of each block.
struct launch_shape {
    std::size_t blocks = 1;
    std::size_t threads = warp_size;
    std::size_t shared_bytes = 0;
};

/// Throws shape_error for a launch that no device accepts.
inline void check_launch(const launch_shape& shape) {
    if (shape.blocks == 0 || shape.threads == 0 || shape.threads % warp_size != 0 || shape.threads > 1024 ||
        shape.shared_bytes > largest_shared_bytes)
        throw shape_error("launch of " + std::to_string(shape.blocks) + " blocks of " + std::to_string(shape.threads) +
                          " threads with " + std::to_string(shape.shared_bytes) +
                          " bytes of shared memory: give at least one block, whole warps, at most 1024 threads and " +
                          std::to_string(largest_shared_bytes) + " bytes");
}

/// The registers of one thread that together hold a tile of a warp's matrices; see mma_16x8x16.
using accumulators = std::array<float, 4>;        // of 16 x 8 floats
using fragment_a = std::array<std::uint32_t, 4>;  // of 16 x 16 pairs-in-a-word of half or bfloat16
using fragment_b = std::array<std::uint32_t, 2>;  // of 16 x 8, likewise

/// What tensor cores multiply.
template <class T>
concept tensor_element = std::same_as<T, half> || std::same_as<T, bfloat16>;

// ---------------------------------------------------------------------------------------------------------------------
// kernel_context<C>: what one thread of a kernel can do. "All lanes" means that every thread of the warp makes the same
// call, none having returned before.
//  1. block() < blocks() and thread() < threads() say who this is; warp() = thread() / 32, lane() = thread() % 32.
//  2. barrier() waits for the threads of the block, warp_barrier() for those of the warp, that have not returned. What
//     they wrote before it, all see after it. Nothing else orders what threads write; 6 to 8 do not either.
//  3. shared<T>(offset, count) is used like a T*: the `count` elements from byte `offset` (a multiple of alignof(T)) on
//     of the block's shared memory, all within its shared_bytes. They hold anything until they are written.
//  4. copy_async<16>(to, from, valid) begins to copy `valid` <= 16 bytes from global to shared memory and to clear the
//     rest of the 16; both addresses are multiples of 16, `from` is not read if valid is 0. `to` holds anything, and
//     nobody may touch it, until the copy is waited for, which must happen before the thread returns.
//  5. commit_copies() makes the copies begun since the last call a batch, possibly an empty one. wait_copies<N>() waits
//     for all batches of this thread but the N newest. To this thread their bytes are visible then, to others after a
//     barrier that follows.
//  6. shuffle(v, lane), shuffle_xor(v, mask): the v of lane `lane`, of lane() ^ mask. T has 4 bytes.      All lanes.
//  7. load_matrix_x4(row): lane i names the 16 bytes (in shared memory, at a multiple of 16) of row i % 8 of matrix i /
//     8, each 8 rows of 8 elements of 16 bits. Result j holds the elements (lane() / 4, 2 (lane() % 4) + {0, 1}) of
//     matrix j, the first one in the lower half. load_matrix_x4_transposed(row) is the same, but that result j holds
//     the elements (2 (lane() % 4) + {0, 1}, lane() / 4).                                                  All lanes.
//  8. mma_16x8x16<T>(c, a, b): C += A B, summed in float, A [16, 16] and B [16, 8] of T, C [16, 8] of float. With
//     g = lane() / 4 and t = lane() % 4 the registers of a lane are, the first element in the lower half,
//         a[0] = A(g, 2t + {0, 1})       a[1] = A(g + 8, 2t + {0, 1})                                       All lanes.
//         a[2] = A(g, 2t + 8 + {0, 1})   a[3] = A(g + 8, 2t + 8 + {0, 1})
//         b[0] = B(2t + {0, 1}, g)       b[1] = B(2t + 8 + {0, 1}, g)
//         c[0], c[1] = C(g, 2t + {0, 1})        c[2], c[3] = C(g + 8, 2t + {0, 1})
//  9. fma_pairs<T>(a, b, c) = a b + c for the two T in each word, rounded once. narrow_pair<T>(low, high) rounds two
//     floats into a word. widen(x) is x as a float. Roundings are to nearest, ties to even.
// 10. put_bits(a, mask, base) = (a & mask) | base.
// Cost: that of one instruction each, but for the waiting in 2 and 5.
// ---------------------------------------------------------------------------------------------------------------------
template <class C>
concept kernel_context = requires(C& c, std::size_t n, float value, const float* from, std::uint32_t word, half h,
                                  bfloat16 b, accumulators& acc, const fragment_a& fa, const fragment_b& fb) {
    { c.thread() } -> std::same_as<std::size_t>;
    { c.threads() } -> std::same_as<std::size_t>;
    { c.warp() } -> std::same_as<std::size_t>;
    { c.lane() } -> std::same_as<std::size_t>;
    { c.block() } -> std::same_as<std::size_t>;
    { c.blocks() } -> std::same_as<std::size_t>;
    c.barrier();
    c.warp_barrier();
    { c.template shared<float>(n, n)[n] } -> std::same_as<float&>;
    c.template copy_async<16>(c.template shared<float>(n, n) + n, from, n);
    c.commit_copies();
    c.template wait_copies<1>();
    { c.shuffle(value, n) } -> std::same_as<float>;
    { c.shuffle_xor(value, n) } -> std::same_as<float>;
    { c.load_matrix_x4(c.template shared<half>(n, n) + n) } -> std::same_as<fragment_a>;
    { c.load_matrix_x4_transposed(c.template shared<half>(n, n) + n) } -> std::same_as<fragment_a>;
    c.template mma_16x8x16<half>(acc, fa, fb);
    c.template mma_16x8x16<bfloat16>(acc, fa, fb);
    { c.template fma_pairs<half>(word, word, word) } -> std::same_as<std::uint32_t>;
    { c.template narrow_pair<bfloat16>(value, value) } -> std::same_as<std::uint32_t>;
    { c.put_bits(word, word, word) } -> std::same_as<std::uint32_t>;
    { c.widen(h) } -> std::same_as<float>;
    { c.widen(b) } -> std::same_as<float>;
};

}  // namespace gptq::cuda
