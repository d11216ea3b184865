// The blocks of weights that GGUF files hold, as llama.cpp reads them. A block is a half d, in some types a half m, a
// multiple of d (and one of m) for each group of its weights, and the codes:
//
//     value = d * scale * (code - zero) - m * min
//
//     type   weights  group  scale     min      zero   bytes
//     Q4_0     32      32    1         -           8     18
//     Q4_1     32      32    1         -1          0     20
//     Q5_0     32      32    1         -          16     22
//     Q5_1     32      32    1         -1          0     24
//     Q8_0     32      32    1         -         128     34
//     Q2_K    256      16    4 bits    4 bits      0     84
//     Q3_K    256      16    -32..31   -           4    110
//     Q4_K    256      32    6 bits    6 bits      0    144
//     Q5_K    256      32    6 bits    6 bits      0    176
//     Q6_K    256      16    -128..127 -          32    210
//
// Codes lie in one or two planes of 1, 2, 4 or 8 bits each. A plane is cut into runs of bytes: the first weights are in
// the lowest bits of a run, one in each byte, the next ones in the bits above.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string_view>

#include <gptq/half.hpp>

namespace gptq::layout {

/// The most weights that a block has.
inline constexpr std::size_t max_ggml_weights = 256;

/// `bits` of every code: where they begin in the block, and the bytes of a run. No bits: no such plane.
struct ggml_plane {
    std::size_t bits = 0, at = 0, run = 1;
};

/// How the multiples of d and m are stored: all of them 1; in 4 or 6 bits in pairs; in 6 or 8 bits with a sign.
enum class ggml_scales { one, pairs_of_4, pairs_of_6, signed_6, signed_8 };

/// A type of blocks.
struct ggml_type {
    static constexpr std::size_t none = max_ggml_weights;  ///< m_at where there is no m

    std::string_view name;
    std::uint32_t id, file_type;  ///< its numbers in files: of a tensor, and of a file that is mostly of this type
    std::size_t weights, group;   ///< in a block, and with a scale in common
    std::size_t bytes;            ///< of a block
    int zero;                     ///< the code of the value 0, less the offset
    ggml_scales scales;
    std::size_t scales_at, d_at, m_at;
    ggml_plane low, high;

    constexpr int bits() const { return static_cast<int>(low.bits + high.bits); }
    constexpr int max_code() const { return (1 << bits()) - 1; }
    constexpr bool has_offset() const { return m_at != none; }
    constexpr std::size_t groups() const { return weights / group; }
    /// The largest multiple of d and of m.
    constexpr int max_scale() const {
        constexpr std::array<int, 5> largest{1, 15, 63, 31, 127};
        return largest[static_cast<std::size_t>(scales)];
    }
};

/// Every type that is known here.
inline constexpr std::array<ggml_type, 10> ggml_types = {{
    {"q4_0", 2, 2, 32, 32, 18, 8, ggml_scales::one, 0, 0, ggml_type::none, {4, 2, 16}, {}},
    {"q4_1", 3, 3, 32, 32, 20, 0, ggml_scales::one, 0, 0, 2, {4, 4, 16}, {}},
    {"q5_0", 6, 8, 32, 32, 22, 16, ggml_scales::one, 0, 0, ggml_type::none, {4, 6, 16}, {1, 2, 1}},
    {"q5_1", 7, 9, 32, 32, 24, 0, ggml_scales::one, 0, 0, 2, {4, 8, 16}, {1, 4, 1}},
    {"q8_0", 8, 7, 32, 32, 34, 128, ggml_scales::one, 0, 0, ggml_type::none, {8, 2, 32}, {}},
    {"q2_k", 10, 10, 256, 16, 84, 0, ggml_scales::pairs_of_4, 0, 80, 82, {2, 16, 32}, {}},
    {"q3_k", 11, 12, 256, 16, 110, 4, ggml_scales::signed_6, 96, 108, ggml_type::none, {2, 32, 32}, {1, 0, 32}},
    {"q4_k", 12, 14, 256, 32, 144, 0, ggml_scales::pairs_of_6, 4, 0, 2, {4, 16, 32}, {}},
    {"q5_k", 13, 16, 256, 32, 176, 0, ggml_scales::pairs_of_6, 4, 0, 2, {4, 48, 32}, {1, 16, 32}},
    {"q6_k", 14, 18, 256, 16, 210, 32, ggml_scales::signed_8, 192, 208, ggml_type::none, {4, 0, 64}, {2, 128, 32}},
}};

/// The type of that number, or of that name; nullptr if there is none.
constexpr const ggml_type* find_ggml_type(std::uint32_t id) {
    for (const ggml_type& type : ggml_types)
        if (type.id == id) return &type;
    return nullptr;
}
constexpr const ggml_type* find_ggml_type(std::string_view name) {
    for (const ggml_type& type : ggml_types)
        if (type.name == name) return &type;
    return nullptr;
}

/// `type`, or the type of smaller blocks that llama.cpp takes in its place (Q4_0 where it takes IQ4_NL), for rows of
/// that many weights; nullptr where no blocks divide them.
constexpr const ggml_type* type_of_rows(const ggml_type& type, std::size_t weights) {
    if (weights % type.weights == 0) return &type;
    const ggml_type* smaller = find_ggml_type(type.bits() == 4   ? "q5_0"
                                              : type.bits() == 5 ? "q5_1"
                                              : type.bits() == 6 ? "q8_0"
                                                                 : "q4_0");
    return weights % smaller->weights == 0 ? smaller : nullptr;
}

/// What the bytes of a block say. Entries beyond the type's groups and weights mean nothing.
struct ggml_block {
    half d, m;
    std::array<int, 16> scales, mins;  ///< by group
    std::array<std::uint8_t, max_ggml_weights> codes;

    /// The step between the values of group g, and what is taken from all of them.
    float step(std::size_t g) const { return to_float(d) * static_cast<float>(scales[g]); }
    float offset(std::size_t g) const { return to_float(m) * static_cast<float>(mins[g]); }
};

/// What weight i of a block stands for.
inline float value_of(const ggml_type& type, const ggml_block& block, std::size_t i) {
    const std::size_t g = i / type.group;
    return block.step(g) * static_cast<float>(int{block.codes[i]} - type.zero) - block.offset(g);
}

namespace detail {

/// Where a plane holds the bits of weight i: a byte, and the lowest of its bits.
struct ggml_place {
    std::size_t byte, shift;
};

constexpr ggml_place place_of(const ggml_plane& plane, std::size_t i) {
    const std::size_t in_run = plane.run * (8 / plane.bits), at = i % in_run;
    return {plane.at + i / in_run * plane.run + at % plane.run, plane.bits * (at / plane.run)};
}

constexpr unsigned bits_at(std::span<const std::byte> bytes, ggml_place place, std::size_t bits) {
    return (static_cast<unsigned>(bytes[place.byte]) >> place.shift) & ((1u << bits) - 1u);
}

constexpr void put_bits(std::span<std::byte> bytes, ggml_place place, unsigned value) {
    bytes[place.byte] |= static_cast<std::byte>(value << place.shift);
}

/// Some bits of the number of a group: how many, where they lie, and which of the number's bits is the lowest of them.
struct ggml_piece {
    std::size_t bits;
    ggml_place place;
    std::size_t of;
};

/// The two pieces of the multiple of d (or, if `min`, of m) of group g. The second may have no bits.
constexpr std::array<ggml_piece, 2> pieces_of(ggml_scales scales, std::size_t g, bool min) {
    const std::size_t half = min ? 4 : 0;
    switch (scales) {
        case ggml_scales::one: return {};
        case ggml_scales::pairs_of_4: return {{{4, {g, half}, 0}, {}}};
        case ggml_scales::pairs_of_6:
            if (g < 4) return {{{6, {g + half, 0}, 0}, {}}};
            return {{{4, {g + 4, half}, 0}, {2, {g - 4 + half, 6}, 4}}};
        case ggml_scales::signed_6: return {{{4, {g % 8, 4 * (g / 8)}, 0}, {2, {8 + g % 4, 2 * (g / 4)}, 4}}};
        case ggml_scales::signed_8: return {{{8, {g, 0}, 0}, {}}};
    }
    return {};
}

/// What is stored for the multiple 0, and for Q8_0's code 0.
constexpr unsigned flipped(ggml_scales scales) { return scales == ggml_scales::signed_6 ? 32u : 0u; }
constexpr unsigned flipped(const ggml_type& type) { return type.bits() == 8 ? 128u : 0u; }

constexpr int multiple_at(const ggml_type& type, std::span<const std::byte> in, std::size_t g, bool min) {
    unsigned stored = 0;
    for (const ggml_piece& piece : pieces_of(type.scales, g, min))
        if (piece.bits != 0) stored |= bits_at(in.subspan(type.scales_at), piece.place, piece.bits) << piece.of;
    if (type.scales == ggml_scales::signed_8) return static_cast<std::int8_t>(stored);
    return static_cast<int>(stored) - static_cast<int>(flipped(type.scales));
}

constexpr void put_multiple(const ggml_type& type, std::span<std::byte> out, std::size_t g, bool min, int value) {
    const unsigned stored = static_cast<unsigned>(value + static_cast<int>(flipped(type.scales)));
    for (const ggml_piece& piece : pieces_of(type.scales, g, min))
        if (piece.bits != 0)
            put_bits(out.subspan(type.scales_at), piece.place, stored >> piece.of & ((1u << piece.bits) - 1u));
}

}  // namespace detail

/// Reads a block of type.bytes.
inline ggml_block decode(const ggml_type& type, std::span<const std::byte> in) {
    ggml_block block{};
    std::memcpy(&block.d, in.data() + type.d_at, 2);
    if (type.has_offset()) std::memcpy(&block.m, in.data() + type.m_at, 2);
    for (std::size_t g = 0; g < type.groups(); ++g) {
        const bool one = type.scales == ggml_scales::one;
        block.scales[g] = one ? 1 : detail::multiple_at(type, in, g, false);
        if (type.has_offset()) block.mins[g] = one ? -1 : detail::multiple_at(type, in, g, true);
    }
    for (std::size_t i = 0; i < type.weights; ++i) {
        unsigned code = detail::bits_at(in, detail::place_of(type.low, i), type.low.bits);
        if (type.high.bits != 0)
            code |= detail::bits_at(in, detail::place_of(type.high, i), type.high.bits) << type.low.bits;
        block.codes[i] = static_cast<std::uint8_t>(code ^ detail::flipped(type));
    }
    return block;
}

/// Writes a block of type.bytes. Codes and multiples are those that the type has.
inline void encode(const ggml_type& type, const ggml_block& block, std::span<std::byte> out) {
    std::fill(out.begin(), out.end(), std::byte{0});
    std::memcpy(out.data() + type.d_at, &block.d, 2);
    if (type.has_offset()) std::memcpy(out.data() + type.m_at, &block.m, 2);
    for (std::size_t g = 0; g < type.groups(); ++g) {
        detail::put_multiple(type, out, g, false, block.scales[g]);
        if (type.has_offset()) detail::put_multiple(type, out, g, true, block.mins[g]);
    }
    for (std::size_t i = 0; i < type.weights; ++i) {
        const unsigned code = block.codes[i] ^ detail::flipped(type);
        detail::put_bits(out, detail::place_of(type.low, i), code & ((1u << type.low.bits) - 1u));
        if (type.high.bits != 0) detail::put_bits(out, detail::place_of(type.high, i), code >> type.low.bits);
    }
}

}  // namespace gptq::layout
