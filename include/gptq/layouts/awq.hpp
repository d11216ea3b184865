// The layout of AWQ checkpoints of the version GEMM.
//
// A layer of N output and K input features in G groups, 4 bits a code; eight output features share a word, the even
// ones in its lower half:
//
//      qweight  uint32 [K, N/8]      qzeros  uint32 [G, N/8]      scales  [G, N]
//
//      word w of a row:  | n7 | n5 | n3 | n1 | n6 | n4 | n2 | n0 |    (highest bits on the left; n0 is feature 8 w)
//
// Zero points are stored as they are, those of symmetric layers too. No layer has a g_idx.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include <gptq/concepts.hpp>
#include <gptq/error.hpp>
#include <gptq/layouts/parts.hpp>
#include <gptq/matrix_view.hpp>

namespace gptq::layout {

/// AWQ, GEMM version (Lin et al., arXiv:2306.00978, and the files of AutoAWQ).
struct awq {
    static constexpr bool scales_by_group = true;
    static constexpr int min_zero = 0;
    static constexpr layer_parts parts{".qweight", ".qzeros", ".scales", ""};

    static constexpr bool supports(int bits) { return bits == 4; }
    /// -1 stands for one group per row.
    static constexpr bool reads_groups_of(int size) {
        return size == -1 || size == 16 || size == 32 || size == 64 || size == 128;
    }

    /// Throws shape_error unless N is a multiple of 8.
    static void check_shape(std::size_t out_features, std::size_t in_features) {
        if (out_features % in_word == 0) return;
        throw shape_error(
            "layout awq: a layer of [out_features, in_features] = " + shape_string(out_features, in_features) +
            " cannot be packed, its output features must be a multiple of 8; leave it unquantized");
    }
    static constexpr extent2 layer_of(extent2 words, int /*bits*/) { return {words.cols * in_word, words.rows}; }

    template <int Bits>
    static constexpr extent2 code_words(std::size_t out_features, std::size_t in_features) {
        return {in_features, out_features / in_word};
    }
    template <int Bits>
    static constexpr extent2 zero_words(std::size_t out_features, std::size_t groups) {
        return {groups, out_features / in_word};
    }

    template <int Bits>
    static void pack_codes(matrix_view<const std::uint8_t> codes, matrix_view<std::uint32_t> words) {
        for (std::size_t k = 0; k < words.rows; ++k)
            for (std::size_t w = 0; w < words.cols; ++w) {
                std::uint32_t word = 0;
                for (std::size_t i = 0; i < in_word; ++i)
                    word |= static_cast<std::uint32_t>(codes(w * in_word + feature_at[i], k)) << (4 * i);
                words(k, w) = word;
            }
    }
    template <int Bits>
    static void unpack_codes(matrix_view<const std::uint32_t> words, matrix_view<std::uint8_t> codes) {
        for (std::size_t k = 0; k < words.rows; ++k)
            for (std::size_t w = 0; w < words.cols; ++w)
                for (std::size_t i = 0; i < in_word; ++i)
                    codes(w * in_word + feature_at[i], k) = static_cast<std::uint8_t>(words(k, w) >> (4 * i) & 15u);
    }

    /// Zero points lie as codes do, with groups in the place of input features.
    template <int Bits>
    static void pack_zeros(matrix_view<const std::uint8_t> zeros, matrix_view<std::uint32_t> words) {
        pack_codes<Bits>(zeros, words);
    }
    template <int Bits>
    static void unpack_zeros(matrix_view<const std::uint32_t> words, matrix_view<std::uint8_t> zeros) {
        unpack_codes<Bits>(words, zeros);
    }

 private:
    static constexpr std::size_t in_word = 8;
    /// The output feature, of the eight of a word, whose code the i-th four bits hold.
    static constexpr std::array<std::size_t, in_word> feature_at{0, 2, 4, 6, 1, 3, 5, 7};
};

static_assert(PackLayout<awq>);

}  // namespace gptq::layout
