// The layouts of GPTQ checkpoints: "gptq" (gptq_v1) and "gptq_v2". They differ in how zero points are stored.
//
// A layer of N output and K input features in G groups, b bits a code; every line below is one little-endian bit stream
// (bit_stream.hpp), so 3 bits are dense and codes straddle words:
//
//      qweight  uint32 [K*b/32, N]             qzeros  uint32 [G, N*b/32]              scales  [G, N]
//
//               n = 0       n = 1    ...                words along n  -->
//            +-----------+-----------+-            +---------------------+-
//          | | k0 k1 ... | k0 k1 ... |       g = 0 | n0 n1 n2 ...        |      v2: the zero point
//    words | | k8 k9 ... | k8 k9 ... |       g = 1 | n0 n1 n2 ...        |      v1: the zero point - 1
//  along k v |    ...    |    ...    |             |        ...          |
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <string>

#include <gptq/concepts.hpp>
#include <gptq/error.hpp>
#include <gptq/layouts/bit_stream.hpp>
#include <gptq/layouts/parts.hpp>
#include <gptq/matrix_view.hpp>

namespace gptq::layout {

/// "gptq_v2": zero points as they are. The layout to write for asymmetric grids.
struct gptq_v2 {
    static constexpr bool scales_by_group = true;
    static constexpr int min_zero = 0;
    static constexpr layer_parts parts{".qweight", ".qzeros", ".scales", ".g_idx"};

    static constexpr bool supports(int bits) { return bits == 2 || bits == 3 || bits == 4 || bits == 8; }
    /// The sizes that GPTQModel's kernels know; -1 stands for one group per row.
    static constexpr bool reads_groups_of(int size) {
        constexpr std::array<int, 8> sizes{-1, 16, 32, 64, 128, 256, 512, 1024};
        return std::find(sizes.begin(), sizes.end(), size) != sizes.end();
    }

    /// Throws shape_error unless both N and K are multiples of 32, as every reader of the format expects.
    static void check_shape(std::size_t out_features, std::size_t in_features) {
        if (out_features % 32 == 0 && in_features % 32 == 0) return;
        throw shape_error(
            "layout gptq: a layer of [out_features, in_features] = " + shape_string(out_features, in_features) +
            " cannot be packed, both must be multiples of 32; leave this layer unquantized");
    }

    static constexpr extent2 layer_of(extent2 words, int bits) {
        return {words.cols, words.rows / static_cast<std::size_t>(bits) * 32};
    }

    template <int Bits>
    static constexpr extent2 code_words(std::size_t out_features, std::size_t in_features) {
        return {stream_words<Bits>(in_features), out_features};
    }
    template <int Bits>
    static constexpr extent2 zero_words(std::size_t out_features, std::size_t groups) {
        return {groups, stream_words<Bits>(out_features)};
    }

    /// The words of output features [first, first + count).
    static matrix_view<const std::uint32_t> code_block(matrix_view<const std::uint32_t> words, std::size_t first,
                                                       std::size_t count) {
        return words.columns(first, first + count);
    }

    template <int Bits>
    static void pack_codes(matrix_view<const std::uint8_t> codes, matrix_view<std::uint32_t> words) {
        for (std::size_t n = 0; n < codes.rows; ++n) pack_line<Bits>(row_line(codes, n), column_line(words, n));
    }
    template <int Bits>
    static void unpack_codes(matrix_view<const std::uint32_t> words, matrix_view<std::uint8_t> codes) {
        for (std::size_t n = 0; n < codes.rows; ++n) unpack_line<Bits>(column_line(words, n), row_line(codes, n));
    }

    template <int Bits>
    static void pack_zeros(matrix_view<const std::uint8_t> zeros, matrix_view<std::uint32_t> words) {
        for (std::size_t g = 0; g < zeros.cols; ++g) pack_line<Bits>(column_line(zeros, g), row_line(words, g));
    }
    template <int Bits>
    static void unpack_zeros(matrix_view<const std::uint32_t> words, matrix_view<std::uint8_t> zeros) {
        for (std::size_t g = 0; g < zeros.cols; ++g) unpack_line<Bits>(row_line(words, g), column_line(zeros, g));
    }
};

/// "gptq" (v1): stores zero - 1, so it cannot hold a zero point of 0. Where the fields do not straddle words, readers
/// add 1 to every field of a word at once; a writer that subtracted likewise borrowed from the next field for a zero of
/// 0, and the same addition undoes that.
struct gptq_v1 : gptq_v2 {
    static constexpr int min_zero = 1;

    template <int Bits>
    static void pack_zeros(matrix_view<const std::uint8_t> zeros, matrix_view<std::uint32_t> words) {
        matrix<std::uint8_t> less_one(zeros.rows, zeros.cols);
        for (std::size_t n = 0; n < zeros.rows; ++n)
            for (std::size_t g = 0; g < zeros.cols; ++g) less_one(n, g) = static_cast<std::uint8_t>(zeros(n, g) - 1);
        gptq_v2::pack_zeros<Bits>(less_one.view(), words);
    }
    template <int Bits>
    static void unpack_zeros(matrix_view<const std::uint32_t> words, matrix_view<std::uint8_t> zeros) {
        if constexpr (32 % Bits == 0) {
            constexpr std::uint32_t one_a_field = ~std::uint32_t{0} / ((1u << Bits) - 1);
            matrix<std::uint32_t> plus_one(words.rows, words.cols);
            for (std::size_t r = 0; r < words.rows; ++r)
                for (std::size_t c = 0; c < words.cols; ++c) plus_one(r, c) = words(r, c) + one_a_field;
            gptq_v2::unpack_zeros<Bits>(plus_one.view(), zeros);
        } else {
            constexpr int mask = (1 << Bits) - 1;
            gptq_v2::unpack_zeros<Bits>(words, zeros);
            for (std::size_t n = 0; n < zeros.rows; ++n)
                for (std::uint8_t& zero : zeros.row(n)) zero = static_cast<std::uint8_t>((zero + 1) & mask);
        }
    }
};

static_assert(PackLayout<gptq_v1> && PackLayout<gptq_v2>);

}  // namespace gptq::layout
