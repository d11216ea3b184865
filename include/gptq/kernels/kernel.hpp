// What a kernel is given and what it does: the contract between the headers of this folder.
//
// Weights lie in panels of 32 output features, and a panel's input features in runs of 32. A run of b-bit codes takes b
// lines of 32 words of 32 bits; word n of each line belongs to output feature n of the panel. The 32 features of a run
// are 8 quads of 4, and a quad takes one field in each of the four bytes of a word:
//
//      b = 8    line i holds quad i              word = | k3 | k2 | k1 | k0 |   (highest bits on the left, k from 4 i)
//      b = 4    line i holds quads 2i, 2i+1      byte = | quad 2i+1 | quad 2i |
//      b = 2    line i holds quads 4i .. 4i+3    byte = | 4i+3 | 4i+2 | 4i+1 | 4i |
//      b = 3    the lower two bits as b = 2 in lines 0 and 1, the highest one in line 2, quad j at bit j of each byte
//
// So one shift and one mask give four codes as bytes, of all output features in a vector at once. Those are multiplied
// by four inputs that all of them share; a mask and a shift more make 16-bit pairs of them, and a mask and a conversion
// floats. A panel is two vectors wide, so that whatever is made of an input, be it only a copy of it in every lane, is
// used twice.
//
// Inputs lie in the order of the codes, as words of 32 bits that are multiplied by a whole line each: one float, two
// 16-bit integers or four bytes. Rows that are multiplied together lie word by word side by side, in tiles: the first
// word of each row of the tile, then the second of each.
#pragma once

#include <cstddef>
#include <cstdint>

namespace gptq::kernels {

inline constexpr std::size_t lanes = 16;               ///< of a vector of 32-bit words
inline constexpr std::size_t panel_width = 2 * lanes;  ///< output features of a panel
inline constexpr std::size_t run_features = 32;
/// Runs of a segment at most: the inputs of a segment share a scale. Sums over 128 products of a 16-bit integer and an
/// 8-bit code fit into 32 bits.
inline constexpr std::size_t segment_runs = 4;
/// Rows of a small tile. Where there are more rows than one, zeros fill up the last tile.
inline constexpr std::size_t small_tile = 4;
/// Rows of inputs in one call at most.
inline constexpr std::size_t call_rows = 96;

/// The number of bits that codes of `bits` bits are held in: codes of 5 to 7 bits take a byte.
constexpr int held_bits(int bits) { return bits <= 4 ? bits : 8; }

/// What an input is while it is multiplied.
enum class held_as { floats, int16, int8 };

/// What a code stands for while it is multiplied: itself, as in affine layers, or an entry of a table.
enum class levels_as { codes, floats, bytes };

/// The levels of a layer that is not affine: as floats or, where they are whole numbers, as bytes.
struct level_table {
    /// Bytes are at most this, so that products take them for signed and for unsigned ones.
    static constexpr int largest_byte = 127;
    /// Tables that fit into registers: those for codes of up to so many bits.
    static constexpr int small_bits = 4;

    alignas(64) float floats[256];  ///< of codes of up to 4 bits: 16 entries, repeated where the codes are fewer
    std::uint8_t bytes[16];         ///< for codes of 4 bits
};

/// Neighbouring input features of one group, as many as fill whole runs; where the group ends before the last run does,
/// codes and inputs are 0.
struct segment {
    std::uint32_t runs;
    std::uint32_t group;
};

/// The output features of a panel. Those that the layer does not have any more have a scale of 0.
struct panel_view {
    const segment* segments;
    std::size_t segment_count;
    const std::uint32_t* words;        ///< runs of all segments, one after the other; 64-byte aligned
    const float* scales;               ///< [groups, panel_width], or null:
    const std::uint32_t* half_scales;  ///< [groups, lanes], binary16: that of output i below that of output i + lanes
    const std::uint8_t* zeros;         ///< [groups, panel_width], or [panel_width] for all groups:
    std::size_t zeros_of_group;        ///< from one group's to the next: panel_width, or 0
    const level_table* levels;         ///< null where codes stand for themselves
};

/// Inputs of some tokens, as hold() left them.
struct rows_view {
    std::size_t rows;            ///< 1, or a multiple of small_tile up to call_rows
    const std::uint32_t* words;  ///< a tile that begins with row r begins at words + r * row_words
    std::size_t row_words;
    std::size_t segments;
    // Of a tile that begins with row r, [segments, rows of the tile] from r * segments on:
    const float* scales;        ///< what the integers are multiples of; 1 for floats
    const std::uint32_t* sums;  ///< minus the sum of what is held: a float by its bits, or a pair of
                                ///< 16-bit integers of which the second counts 128 times
};

/// One kernel: a way of holding inputs, for codes of one number of bits that stand for one kind of levels.
struct kernel {
    std::size_t words_per_run;  ///< of a row of inputs
    std::size_t tile_rows;  ///< rows of a tile while there are as many left; then small_tile, and 1 for a single row

    /// Rounds the inputs x [32 * runs] of a segment to multiples of max|x| / levels, or takes them as they are if the
    /// kernel holds floats; where it holds floats for want of whole levels, they are multiples of max|x| / levels, too.
    /// Writes words [words_per_run * runs], the scale, and minus the sum of what is held. Inputs that
    /// are not finite make the scale NaN where they are rounded; a segment of numbers below 1e-30 counts as zeros
    /// there.
    void (*hold)(const float* x, std::size_t runs, float levels, std::uint32_t* words, float* scale,
                 std::uint32_t* sum);

    /// The same for a row that is multiplied alone, in words of which only this kernel, or one with the same function
    /// here, has to know the meaning.
    void (*hold_alone)(const float* x, std::size_t runs, float levels, std::uint32_t* words, float* scale,
                       std::uint32_t* sum);

    /// out [rows, panel_width] = inputs times the panel's weights, scale * (level of the code - zero).
    void (*multiply)(const panel_view& panel, const rows_view& inputs, float* out);
};

}  // namespace gptq::kernels
