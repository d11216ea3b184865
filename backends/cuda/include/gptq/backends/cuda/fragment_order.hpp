// How the decode kernel wants a layer's weights: in the order in which the lanes of a warp hold them as fragments of
// mma_16x8x16 (context.hpp, 8), so that each lane copies 16 bytes at a time and what it copies is what it multiplies.
//
// A layer of N output and K input features, b bits a code:
//   slots   input features sorted by group; each group begins at a multiple of 16 slots, and the gaps hold nothing
//   step    16 slots, all of one group: the depth of one mma
//   strip   64 output features, the work of one block of threads
//   tile    64 slots (4 steps) of one strip. A lane holds 128 codes of it, in b vectors of 4 words
//
//     words   [strip][tile][vector: b][lane: 32][4]      scales  [strip][group][64]      zeros  [strip][group][64]
//
// The codes of a lane are 64 pairs (m, step, r), numbered so: m is one of four fragments A, of output features 16 m to
// 16 m + 15, and r its register. The two codes of a pair are neighbouring slots, and lie in the lower and the upper
// half of a word, at the same bit; with b = 4
//
//     word i = | p3 | p2 | p1 | p0 | p3 | p2 | p1 | p0 |    (highest bits on the left; p0 is pair 4 i)
//                second slot         first slot
//
// so that a shift and a mask leave a pair in the places where two halves or bfloat16s need it. Codes of 3 bits are 8
// words of their lower 2 bits, then 4 words of their highest. The 64 scales and zeros of a strip are ordered such that
// what a lane needs, for output features 16 m + lane / 4 and 8 more, are neighbours.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include <gptq/backends/cuda/context.hpp>
#include <gptq/error.hpp>
#include <gptq/half.hpp>
#include <gptq/layouts/bit_stream.hpp>
#include <gptq/matrix_view.hpp>
#include <gptq/quantized.hpp>

namespace gptq::cuda {

inline constexpr std::size_t step_slots = 16;
inline constexpr std::size_t tile_steps = 4;
inline constexpr std::size_t tile_slots = tile_steps * step_slots;
inline constexpr std::size_t strip_features = 64;
inline constexpr std::size_t strip_fragments = strip_features / 16;

/// True for the numbers of bits that there are kernels for.
constexpr bool has_fragments(int bits) { return bits == 2 || bits == 3 || bits == 4 || bits == 8; }

/// The size of a layer in fragment order.
struct fragment_shape {
    std::size_t out_features = 0;
    std::size_t groups = 0;
    std::size_t group_steps = 0;  ///< steps of each group; the last one may have fewer
    std::size_t tiles = 0;

    constexpr std::size_t slots() const { return tiles * tile_slots; }
    constexpr std::size_t strips() const { return (out_features + strip_features - 1) / strip_features; }
    constexpr std::size_t words(int bits) const {
        return strips() * tiles * static_cast<std::size_t>(bits) * warp_size * 4;
    }
    constexpr std::size_t parameters() const { return strips() * groups * strip_features; }
    /// The group whose parameters are used for a step. What follows the last group counts as part of it.
    constexpr std::size_t group_of_step(std::size_t step) const { return std::min(step / group_steps, groups - 1); }
};

/// A layer in fragment order, where the kernels run. Pointers are multiples of 16.
struct fragment_view {
    fragment_shape shape;
    const std::uint32_t* words = nullptr;  ///< [strips, tiles, bits, 32, 4]
    const half* scales = nullptr;          ///< [strips, groups, 64]
    const std::uint8_t* zeros = nullptr;   ///< [strips, groups, 64], or null: all are 2^(bits-1)
};

/// In which slot each input feature lies.
struct slot_order {
    static constexpr std::int32_t empty = -1;

    fragment_shape shape;
    std::vector<std::int32_t> features;  ///< [slots], the input feature in a slot, or `empty`

    bool natural = false;  ///< input feature k lies in slot k: inputs can be used as they are
};

namespace detail {

/// How many input features each group has. Throws shape_error where g_idx names a group that there is not.
inline std::vector<std::size_t> group_sizes(std::span<const std::int32_t> g_idx, std::size_t groups) {
    std::vector<std::size_t> sizes(groups, 0);
    for (const std::int32_t g : g_idx) {
        if (g < 0 || static_cast<std::size_t>(g) >= groups)
            throw shape_error("fragment order: g_idx names group " + std::to_string(g) + " of a layer with " +
                              std::to_string(groups));
        ++sizes[static_cast<std::size_t>(g)];
    }
    return sizes;
}

constexpr std::size_t ceil_div(std::size_t a, std::size_t b) { return (a + b - 1) / b; }

}  // namespace detail

/// The slots of a layer with the given groups, in any order; features of a group keep theirs. Throws shape_error for a
/// layer without features, and where g_idx [K] names a group that there is not.
inline slot_order order_slots(std::size_t out_features, std::span<const std::int32_t> g_idx, std::size_t groups) {
    if (out_features == 0 || g_idx.empty()) throw shape_error("fragment order: the layer is empty");
    const std::vector<std::size_t> sizes = detail::group_sizes(g_idx, groups);
    const std::size_t group_steps = detail::ceil_div(*std::max_element(sizes.begin(), sizes.end()), step_slots);
    const std::size_t steps = (groups - 1) * group_steps + detail::ceil_div(sizes.back(), step_slots);
    slot_order order{{out_features, groups, group_steps, detail::ceil_div(steps, tile_steps)}, {}, false};
    order.features.assign(order.shape.slots(), slot_order::empty);
    std::vector<std::size_t> next(groups);
    for (std::size_t g = 0; g < groups; ++g) next[g] = g * group_steps * step_slots;
    for (std::size_t k = 0; k < g_idx.size(); ++k)
        order.features[next[static_cast<std::size_t>(g_idx[k])]++] = static_cast<std::int32_t>(k);
    order.natural = true;
    for (std::size_t k = 0; k < g_idx.size(); ++k)
        order.natural = order.natural && order.features[k] == static_cast<std::int32_t>(k);
    return order;
}

// ---------------------------------------------------------------------------------------------------------------------
// Where a code lies
// ---------------------------------------------------------------------------------------------------------------------

/// The codes that a lane holds of a tile.
template <int Bits>
using lane_words = std::array<std::uint32_t, 4 * static_cast<std::size_t>(Bits)>;

/// The pairs that a lane holds of a tile.
inline constexpr std::size_t lane_pairs = strip_fragments * tile_steps * 4;

/// The number of a pair within its lane.
constexpr std::size_t pair_index(std::size_t m, std::size_t step, std::size_t r) {
    return (m * tile_steps + step) * 4 + r;
}

/// The output feature (within the strip) and the first slot (within the tile) of a lane's pair.
struct pair_position {
    std::size_t row;
    std::size_t slot;
};
constexpr pair_position position_of_pair(std::size_t lane, std::size_t pair) {
    const std::size_t m = pair / 16, step = pair / 4 % 4, r = pair % 4;
    return {m * 16 + r % 2 * 8 + lane / 4, step * step_slots + r / 2 * 8 + lane % 4 * 2};
}

/// The place of an output feature among the 64 parameters of its strip: those of a lane are neighbours.
constexpr std::size_t parameter_place(std::size_t row) { return row % 8 * 8 + row / 8; }
/// The place of the first of a lane's two parameters for fragment m; the second, 8 output features on, is next to it.
constexpr std::size_t lane_parameter(std::size_t lane, std::size_t m) { return lane / 4 * 8 + m * 2; }

namespace detail {

// What a lane loads or stores at once.
struct alignas(16) quad {
    std::array<std::uint32_t, 4> words;
};
struct alignas(4) half_pair {
    std::array<half, 2> values;
};
struct alignas(2) byte_pair {
    std::array<std::uint8_t, 2> values;
};

/// The `Width` bits of a pair in words that begin at `first`, in the lower bits of both halves.
template <std::size_t Width, class Words>
constexpr std::uint32_t pair_field(const Words& words, std::size_t first, std::size_t pair) {
    constexpr std::size_t pairs = 16 / Width;
    constexpr std::uint32_t mask = 0x00010001u * ((1u << Width) - 1);
    return (words[first + pair / pairs] >> (Width * (pair % pairs))) & mask;
}

}  // namespace detail

/// The two codes of a pair, one in each half of the result. `words` is lane_words<Bits> or what is indexed as it is.
template <int Bits, class Words>
constexpr std::uint32_t code_pair(const Words& words, std::size_t pair) {
    if constexpr (Bits == 3)
        return detail::pair_field<2>(words, 0, pair) | detail::pair_field<1>(words, 8, pair) << 2;
    else
        return detail::pair_field<static_cast<std::size_t>(Bits)>(words, 0, pair);
}

// ---------------------------------------------------------------------------------------------------------------------
// Layers to repack. A source has code(n, k), scale(n, g) and zero(n, g), callable where the kernel runs.
// ---------------------------------------------------------------------------------------------------------------------

/// A layer as the solver leaves it.
struct code_source {
    matrix_view<const std::uint8_t> codes;  ///< [N, K]
    matrix_view<const float> scales;        ///< [N, G]
    matrix_view<const std::uint8_t> zeros;  ///< [N, G]

    constexpr std::size_t out_features() const { return codes.rows; }
    constexpr std::uint32_t code(std::size_t n, std::size_t k) const { return codes(n, k); }
    constexpr half scale(std::size_t n, std::size_t g) const { return to_half(scales(n, g)); }
    constexpr std::uint8_t zero(std::size_t n, std::size_t g) const { return zeros(n, g); }
};

/// The tensors of a GPTQ checkpoint (layouts/gptq.hpp has the picture). Version 1 stores zero points less one.
template <int Bits, int Version>
struct gptq_source {
    static_assert(has_fragments(Bits) && (Version == 1 || Version == 2));
    matrix_view<const std::uint32_t> qweight;  ///< [K b / 32, N]
    matrix_view<const std::uint32_t> qzeros;   ///< [G, N b / 32]
    matrix_view<const half> scales;            ///< [G, N]

    constexpr std::size_t out_features() const { return qweight.cols; }
    constexpr std::uint32_t code(std::size_t n, std::size_t k) const { return field(column_line(qweight, n), k, 0); }
    constexpr half scale(std::size_t n, std::size_t g) const { return scales(g, n); }
    constexpr std::uint8_t zero(std::size_t n, std::size_t g) const {
        // Where fields do not straddle words, version 1 is read by adding 1 to all fields of a word at once.
        constexpr bool by_words = Version == 1 && 32 % Bits == 0;
        constexpr std::uint32_t one = Version == 1 && !by_words ? 1 : 0;
        return static_cast<std::uint8_t>((field(row_line(qzeros, g), n, by_words ? ~0u / mask : 0) + one) & mask);
    }

 private:
    static constexpr std::uint32_t mask = (1u << Bits) - 1;

    /// Field i of a bit stream, `added` to each of its words first.
    static constexpr std::uint32_t field(matrix_line<const std::uint32_t> stream, std::size_t i, std::uint32_t added) {
        const std::size_t bit = i * Bits, word = bit / 32, shift = bit % 32;
        std::uint32_t value = (stream.data[word * stream.stride] + added) >> shift;
        if (shift + Bits > 32) value |= (stream.data[(word + 1) * stream.stride] + added) << (32 - shift);
        return value & mask;
    }
};

// ---------------------------------------------------------------------------------------------------------------------
// Repacking
// ---------------------------------------------------------------------------------------------------------------------

/// Repacks the codes of a layer: a thread a word.
template <int Bits, class Source>
struct repack_codes_kernel {
    static_assert(has_fragments(Bits));
    static constexpr std::size_t block_threads = 256;
    Source source;
    fragment_shape shape;
    const std::int32_t* features;  ///< [slots], see slot_order
    std::uint32_t* words;          ///< [strips, tiles, Bits, 32, 4]

    constexpr launch_shape launch() const {
        return {detail::ceil_div(shape.words(Bits), block_threads), block_threads};
    }

    template <kernel_context Context>
    constexpr void operator()(Context& ctx) const {
        const std::size_t i = ctx.block() * ctx.threads() + ctx.thread();
        if (i < shape.words(Bits)) words[i] = word(i);
    }

    constexpr std::uint32_t word(std::size_t i) const {
        const std::size_t lane = i / 4 % warp_size, vector = i / (4 * warp_size);
        const std::size_t tile = vector / Bits, lane_word = vector % Bits * 4 + i % 4;
        if constexpr (Bits == 3) {
            if (lane_word < 8) return fields<2>(tile, lane, lane_word, 0);
            return fields<1>(tile, lane, lane_word - 8, 2);
        } else {
            return fields<static_cast<std::size_t>(Bits)>(tile, lane, lane_word, 0);
        }
    }

 private:
    /// A word of the `Width` bits from bit `low` on of a lane's codes: the inverse of detail::pair_field.
    template <std::size_t Width>
    constexpr std::uint32_t fields(std::size_t tile, std::size_t lane, std::size_t word, std::size_t low) const {
        constexpr std::size_t pairs = 16 / Width;
        constexpr std::uint32_t mask = (1u << Width) - 1;
        std::uint32_t packed = 0;
        for (std::size_t p = 0; p < pairs; ++p) {
            const pair_position at = position_of_pair(lane, word * pairs + p);
            for (std::size_t i = 0; i < 2; ++i)
                packed |= (code(tile, at.row, at.slot + i) >> low & mask) << (Width * p + 16 * i);
        }
        return packed;
    }

    /// `tile` counts through all strips. Where there is no weight the code is 0; inputs or scales are 0 there as well.
    constexpr std::uint32_t code(std::size_t tile, std::size_t row, std::size_t slot) const {
        const std::size_t n = tile / shape.tiles * strip_features + row;
        const std::int32_t k = features[tile % shape.tiles * tile_slots + slot];
        return n < shape.out_features && k != slot_order::empty ? source.code(n, static_cast<std::size_t>(k)) : 0;
    }
};

/// Repacks scales and zero points: a thread for each.
template <class Source>
struct repack_parameters_kernel {
    static constexpr std::size_t block_threads = 256;
    Source source;
    fragment_shape shape;
    half* scales;         ///< [strips, groups, 64]
    std::uint8_t* zeros;  ///< likewise, or null

    constexpr launch_shape launch() const {
        return {detail::ceil_div(shape.parameters(), block_threads), block_threads};
    }

    template <kernel_context Context>
    constexpr void operator()(Context& ctx) const {
        const std::size_t i = ctx.block() * ctx.threads() + ctx.thread();
        if (i < shape.parameters()) set(i);
    }

    constexpr void set(std::size_t i) const {
        const std::size_t row = i % strip_features, group = i / strip_features % shape.groups;
        const std::size_t strip = i / strip_features / shape.groups, n = strip * strip_features + row;
        const std::size_t to = i - row + parameter_place(row);
        const bool exists = n < shape.out_features;
        scales[to] = exists ? source.scale(n, group) : half{};
        if (zeros != nullptr) zeros[to] = exists ? source.zero(n, group) : std::uint8_t{0};
    }
};

/// Repacks a layer with `launch`, a device_launcher or a host_launcher; all pointers are to memory of its kernels.
/// features [slots] and shape are those of order_slots; words, scales and zeros have room for shape.words(Bits),
/// shape.parameters() and shape.parameters() elements, zeros may be null for symmetric layers.
template <int Bits, class Launcher, class Source>
void repack(const Launcher& launch, const Source& source, const fragment_shape& shape, const std::int32_t* features,
            std::uint32_t* words, half* scales, std::uint8_t* zeros) {
    const repack_codes_kernel<Bits, Source> codes{source, shape, features, words};
    launch(codes.launch(), codes);
    const repack_parameters_kernel<Source> parameters{source, shape, scales, zeros};
    launch(parameters.launch(), parameters);
}

/// A layer in fragment order in host memory.
struct host_fragments {
    slot_order order;
    std::vector<std::uint32_t> words;  ///< vectors begin at multiples of 16, as allocations do
    std::vector<half> scales;
    std::vector<std::uint8_t> zeros;  ///< empty for symmetric layers

    fragment_view view() const {
        return {order.shape, words.data(), scales.data(), zeros.empty() ? nullptr : zeros.data()};
    }
};
static_assert(__STDCPP_DEFAULT_NEW_ALIGNMENT__ >= 16);

/// Repacks a layer on the host. g_idx [K] as in quantized_view; where `symmetric`, zero points are left out. Throws
/// shape_error as order_slots does.
template <int Bits, class Source>
host_fragments pack_fragments(const Source& source, std::span<const std::int32_t> g_idx, std::size_t groups,
                              bool symmetric) {
    host_fragments packed{order_slots(source.out_features(), g_idx, groups), {}, {}, {}};
    const fragment_shape& shape = packed.order.shape;
    packed.words.resize(shape.words(Bits));
    packed.scales.resize(shape.parameters());
    if (!symmetric) packed.zeros.resize(shape.parameters());
    const repack_codes_kernel<Bits, Source> codes{source, shape, packed.order.features.data(), nullptr};
    for (std::size_t i = 0; i < packed.words.size(); ++i) packed.words[i] = codes.word(i);
    const repack_parameters_kernel<Source> parameters{source, shape, packed.scales.data(),
                                                      symmetric ? nullptr : packed.zeros.data()};
    for (std::size_t i = 0; i < packed.scales.size(); ++i) parameters.set(i);
    return packed;
}

}  // namespace gptq::cuda
