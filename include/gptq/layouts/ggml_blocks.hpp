// The blocks of 32 weights that GGUF files hold, as llama.cpp reads them: a half d, in Q4_1 a half m, and the levels.
//
//     Q4_0  18 bytes   value = d * level       level -8 to 7       d, 16 bytes of nibbles (level + 8)
//     Q4_1  20 bytes   value = d * level + m   level 0 to 15       d, m, 16 bytes of nibbles (level)
//     Q5_0  22 bytes   value = d * level       level -16 to 15     d, 32 bits (bit 4 of level + 16), 16 bytes of nibbles
//     Q8_0  34 bytes   value = d * level       level -128 to 127   d, 32 bytes
//
// Byte i of the nibbles holds weight i below and weight i + 16 above.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string_view>

#include <gptq/half.hpp>

namespace gptq::layout {

/// Weights in a block.
inline constexpr std::size_t ggml_block = 32;

/// What a block stands for: value i = d * levels[i] + m.
struct ggml_values {
    half d, m;
    std::array<int, ggml_block> levels;
};

/// A type of blocks: its name, its number in files, bytes of a block, and the levels that it holds. `Offset`: blocks
/// have an m of their own, which is 0 in the others.
template <int Bits, bool Offset>
struct ggml_type {
    static constexpr int least = Offset ? 0 : -(1 << (Bits - 1)), most = least + (1 << Bits) - 1;
    static constexpr std::size_t head = Offset ? 4 : 2;                              ///< bytes of d and m
    static constexpr std::size_t bytes = head + ggml_block * std::size_t{Bits} / 8;  // of a block

    /// Writes a block. Levels lie in [least, most].
    static void encode(const ggml_values& block, std::span<std::byte> out) {
        std::memcpy(out.data(), &block.d, 2);
        if constexpr (Offset) std::memcpy(out.data() + 2, &block.m, 2);
        const std::span<std::byte> packed = out.subspan(head);
        const auto code = [&](std::size_t i) { return static_cast<unsigned>(block.levels[i] - least); };
        if constexpr (Bits == 8) {
            for (std::size_t i = 0; i < ggml_block; ++i) packed[i] = static_cast<std::byte>(block.levels[i]);
            return;
        }
        if constexpr (Bits == 5) {
            std::uint32_t high = 0;
            for (std::size_t i = 0; i < ggml_block; ++i) high |= (code(i) >> 4) << i;
            std::memcpy(packed.data(), &high, 4);
        }
        for (std::size_t i = 0; i < half_block; ++i)
            packed[nibbles + i] = static_cast<std::byte>((code(i) & 15u) | ((code(i + half_block) & 15u) << 4));
    }

    /// What encode() wrote.
    static ggml_values decode(std::span<const std::byte> in) {
        ggml_values block{};
        std::memcpy(&block.d, in.data(), 2);
        if constexpr (Offset) std::memcpy(&block.m, in.data() + 2, 2);
        const std::span<const std::byte> packed = in.subspan(head);
        if constexpr (Bits == 8) {
            for (std::size_t i = 0; i < ggml_block; ++i) block.levels[i] = static_cast<std::int8_t>(packed[i]);
            return block;
        }
        std::uint32_t high = 0;
        if constexpr (Bits == 5) std::memcpy(&high, packed.data(), 4);
        for (std::size_t i = 0; i < ggml_block; ++i) {
            const auto byte = static_cast<unsigned>(packed[nibbles + i % half_block]);
            const unsigned low = i < half_block ? byte & 15u : byte >> 4;
            block.levels[i] = static_cast<int>(low | ((high >> i & 1u) << 4)) + least;
        }
        return block;
    }

 private:
    static_assert(Bits == 4 || Bits == 5 || Bits == 8);
    static constexpr std::size_t half_block = ggml_block / 2;
    static constexpr std::size_t nibbles = Bits == 5 ? 4 : 0;  // where they begin, behind the bits of their own
};

/// A scale, and 4 bits a level, from -8 to 7.
struct q4_0 : ggml_type<4, false> {
    static constexpr std::string_view name = "q4_0";
    static constexpr std::uint32_t id = 2, file_type = 2;
};
/// A scale and an offset, and 4 bits a level, from 0 to 15.
struct q4_1 : ggml_type<4, true> {
    static constexpr std::string_view name = "q4_1";
    static constexpr std::uint32_t id = 3, file_type = 3;
};
/// A scale, and 5 bits a level, from -16 to 15.
struct q5_0 : ggml_type<5, false> {
    static constexpr std::string_view name = "q5_0";
    static constexpr std::uint32_t id = 6, file_type = 8;
};
/// A scale, and a byte a level.
struct q8_0 : ggml_type<8, false> {
    static constexpr std::string_view name = "q8_0";
    static constexpr std::uint32_t id = 8, file_type = 7;
};

}  // namespace gptq::layout
