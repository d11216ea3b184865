// The layout of compressed-tensors checkpoints, format "pack-quantized".
//
// A layer of N output and K input features in G groups, b bits a code; every line is one little-endian bit stream
// (bit_stream.hpp), its last word filled up with zeros:
//
//      weight_packed  uint32 [N, ceil(K*b/32)]   weight_zero_point  uint32 [ceil(N*b/32), G]   weight_scale  [N, G]
//
//            words along k  -->                          g = 0       g = 1    ...
//          +---------------------+-                   +-----------+-----------+-
//    n = 0 | k0 k1 k2 ...        |                  | | n0 n1 ... | n0 n1 ... |
//    n = 1 | k0 k1 k2 ...        |            words | | n8 n9 ... | n8 n9 ... |
//          |        ...          |          along n v |    ...    |    ...    |
//
// The format thinks of signed numbers and adds 2^(b-1) to store them; that sum is this library's code and zero point.
// Symmetric layers have no weight_zero_point.
#pragma once

#include <cstddef>
#include <cstdint>

#include <gptq/concepts.hpp>
#include <gptq/layouts/bit_stream.hpp>
#include <gptq/layouts/parts.hpp>
#include <gptq/matrix_view.hpp>

namespace gptq::layout {

/// compressed-tensors "pack-quantized", 4 and 8 bits: for others the format changed from release to release.
struct compressed_tensors {
    static constexpr bool scales_by_group = false;
    static constexpr int min_zero = 0;
    /// Read by pack() and unpack(): symmetric layers have an empty qzeros.
    static constexpr bool stores_symmetric_zeros = false;

    static constexpr layer_parts parts{".weight_packed", ".weight_zero_point", ".weight_scale", ".weight_g_idx"};

    static constexpr bool supports(int bits) { return bits == 4 || bits == 8; }
    static constexpr bool reads_groups_of(int /*size*/) { return true; }

    /// Every shape will do.
    static void check_shape(std::size_t /*out_features*/, std::size_t /*in_features*/) {}

    template <int Bits>
    static constexpr extent2 code_words(std::size_t out_features, std::size_t in_features) {
        return {out_features, stream_words<Bits>(in_features)};
    }
    template <int Bits>
    static constexpr extent2 zero_words(std::size_t out_features, std::size_t groups) {
        return {stream_words<Bits>(out_features), groups};
    }

    /// The words of output features [first, first + count).
    static matrix_view<const std::uint32_t> code_block(matrix_view<const std::uint32_t> words, std::size_t first,
                                                       std::size_t count) {
        return words.block(first, count, 0, words.cols);
    }

    template <int Bits>
    static void pack_codes(matrix_view<const std::uint8_t> codes, matrix_view<std::uint32_t> words) {
        for (std::size_t n = 0; n < codes.rows; ++n) pack_line<Bits>(row_line(codes, n), row_line(words, n));
    }
    template <int Bits>
    static void unpack_codes(matrix_view<const std::uint32_t> words, matrix_view<std::uint8_t> codes) {
        for (std::size_t n = 0; n < codes.rows; ++n) unpack_line<Bits>(row_line(words, n), row_line(codes, n));
    }

    template <int Bits>
    static void pack_zeros(matrix_view<const std::uint8_t> zeros, matrix_view<std::uint32_t> words) {
        for (std::size_t g = 0; g < zeros.cols; ++g) pack_line<Bits>(column_line(zeros, g), column_line(words, g));
    }
    template <int Bits>
    static void unpack_zeros(matrix_view<const std::uint32_t> words, matrix_view<std::uint8_t> zeros) {
        for (std::size_t g = 0; g < zeros.cols; ++g) unpack_line<Bits>(column_line(words, g), column_line(zeros, g));
    }
};

static_assert(PackLayout<compressed_tensors>);

}  // namespace gptq::layout
