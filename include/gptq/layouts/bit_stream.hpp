// Codes of 2 to 8 bits as one little-endian bit stream in 32-bit words: what every layout of the file formats is made
// of.
//
//      code i takes the bits [i*b, (i+1)*b) of the stream; bit j of the stream is bit j % 32 of word j / 32
//
//      b = 4:  word 0 = | c7 | c6 | c5 | c4 | c3 | c2 | c1 | c0 |    (highest bits on the left)
//      b = 3:  word 0 = |..c10 |  c9  | ... |  c1  |  c0  |          the lowest 2 bits of c10
//              word 1 = |.c21 |  c20 | ... |  c11 |c10..|            its highest bit; the lowest bit of c21
//              word 2 = |  c31 |  c30 | ... |  c22 |c21..|           the highest 2 bits of c21
//
// 32 codes of b bits fill exactly b words, so everything below works by runs of 32 codes.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <type_traits>

#include <gptq/matrix_view.hpp>

namespace gptq {

/// The number of 32-bit words that hold `codes` codes of `Bits` bits; no number of codes overflows it.
template <int Bits>
constexpr std::size_t stream_words(std::size_t codes) {
    return codes / 32 * Bits + (codes % 32 * Bits + 31) / 32;
}

/// A row or a column of a matrix: element i is data[i * stride].
template <class T>
struct matrix_line {
    T* data = nullptr;
    std::size_t stride = 1;
    std::size_t size = 0;
};

/// Row r of `m` as a line.
template <class T>
constexpr matrix_line<T> row_line(matrix_view<T> m, std::size_t r) {
    return {m.data + r * m.ld, 1, m.cols};
}

/// Column c of `m` as a line.
template <class T>
constexpr matrix_line<T> column_line(matrix_view<T> m, std::size_t c) {
    return {m.data + c, m.ld, m.rows};
}

namespace detail {

inline constexpr std::size_t run_length = 32;
using code_run = std::array<std::uint8_t, run_length>;
template <int Bits>
using word_run = std::array<std::uint32_t, static_cast<std::size_t>(Bits)>;

/// Elements [first, first + N) of `line`; 0 after its end.
template <std::size_t N, class T>
std::array<std::remove_const_t<T>, N> load_run(matrix_line<T> line, std::size_t first) {
    std::array<std::remove_const_t<T>, N> run{};
    const std::size_t count = std::min(N, line.size - first);
    for (std::size_t i = 0; i < count; ++i) run[i] = line.data[(first + i) * line.stride];
    return run;
}

/// Writes `run` to the elements of `line` from `first` on; what lies after its end is dropped.
template <std::size_t N, class T>
void store_run(const std::array<T, N>& run, matrix_line<T> line, std::size_t first) {
    const std::size_t count = std::min(N, line.size - first);
    for (std::size_t i = 0; i < count; ++i) line.data[(first + i) * line.stride] = run[i];
}

template <int Bits>
word_run<Bits> pack_run(const code_run& codes) {
    word_run<Bits> words{};
    for (std::size_t i = 0; i < run_length; ++i) {
        const std::size_t bit = i * Bits, word = bit / 32, shift = bit % 32;
        words[word] |= static_cast<std::uint32_t>(codes[i]) << shift;
        if (shift + Bits > 32) words[word + 1] |= static_cast<std::uint32_t>(codes[i]) >> (32 - shift);
    }
    return words;
}

template <int Bits>
code_run unpack_run(const word_run<Bits>& words) {
    constexpr std::uint32_t mask = (1u << Bits) - 1;
    code_run codes{};
    for (std::size_t i = 0; i < run_length; ++i) {
        const std::size_t bit = i * Bits, word = bit / 32, shift = bit % 32;
        std::uint32_t code = words[word] >> shift;
        if (shift + Bits > 32) code |= words[word + 1] << (32 - shift);
        codes[i] = static_cast<std::uint8_t>(code & mask);
    }
    return codes;
}

}  // namespace detail

/// Packs codes, each below 2^Bits, into words. words.size is stream_words<Bits>(codes.size); bits after the last code
/// are 0.
template <int Bits>
void pack_line(matrix_line<const std::uint8_t> codes, matrix_line<std::uint32_t> words) {
    for (std::size_t run = 0; run * detail::run_length < codes.size; ++run)
        detail::store_run(detail::pack_run<Bits>(detail::load_run<detail::run_length>(codes, run * detail::run_length)),
                          words, run * Bits);
}

/// The inverse of pack_line.
template <int Bits>
void unpack_line(matrix_line<const std::uint32_t> words, matrix_line<std::uint8_t> codes) {
    for (std::size_t run = 0; run * detail::run_length < codes.size; ++run)
        detail::store_run(detail::unpack_run<Bits>(detail::load_run<Bits>(words, run * Bits)), codes,
                          run * detail::run_length);
}

}  // namespace gptq
