// Sums over the lanes of a warp.
#pragma once

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>

#include <gptq/backends/cuda/context.hpp>

namespace gptq::cuda {

/// shuffle_xor for a number of 4 or 8 bytes.                                                                 All lanes.
template <kernel_context Context, class T>
constexpr T exchange(Context& ctx, T value, std::size_t mask) {
    return ctx.shuffle_xor(value, mask);
}
template <kernel_context Context>
constexpr double exchange(Context& ctx, double value, std::size_t mask) {
    auto words = std::bit_cast<std::array<std::uint32_t, 2>>(value);
    for (std::uint32_t& word : words) word = ctx.shuffle_xor(word, mask);
    return std::bit_cast<double>(words);
}

/// The sum over the lanes of a warp, for all of them, always in the same order.                            All lanes.
template <kernel_context Context>
constexpr double warp_sum(Context& ctx, double value) {
    for (std::size_t mask = warp_size / 2; mask > 0; mask /= 2) value += exchange(ctx, value, mask);
    return value;
}

}  // namespace gptq::cuda
