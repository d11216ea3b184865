// What a kernel of the solver's loop over the columns of a block is given: 16 rows of the layer side by side.
//
// Rows do the same to different weights, so every step over 16 of them is a few vector instructions. Only what all
// affine grids share is here, value = scale * (code - zero); the grid itself is asked for scales and zero points
// before.
#pragma once

#include <cstddef>
#include <cstdint>

#include <gptq/compiler.hpp>

namespace gptq::kernels {

inline constexpr std::size_t tile_lanes = 16;  ///< rows of a tile

/// Columns [first, last) of a tile, all of one group, and the columns [last, columns) of the block that come after
/// them.
struct column_tile {
    float* weights;        ///< [columns, 16], up to date with all errors before `first`
    float* values;         ///< [columns, 16], what the weights are rounded to
    std::uint32_t* codes;  ///< [columns, 16]
    float* losses;         ///< [16], gets the squares of the errors added
    const float* U;        ///< [columns, columns], diagonal block of the inverse Hessian's factor
    std::size_t U_ld;      ///< floats from one row of U to the next
    std::size_t first, last, columns;
    const float* scales;  ///< [16], of the group
    const float* zeros;   ///< [16]
    float max_code;       ///< 2^bits - 1
};

/// Weights and what a squared error in each costs, in multiples of 16: those beyond the last have a cost of 0.
struct costly_weights {
    const float* weights;
    const float* costs;
    std::size_t count;
};

/// The solver's kernels for one instruction set.
struct column_kernels {
    /// Rounds columns [first, last), turns their weights into errors, (w - q) / U[k,k], and subtracts the errors' share
    /// from the weights after them: steps (4) to (6) of <gptq/quantize.hpp>. Writes values and codes.
    void (*quantize)(const column_tile& tile);

    /// The sum of cost * (w - q)^2, q the value of the grid nearest to w.
    float (*loss)(const costly_weights& group, float scale, float zero, float max_code);
};

}  // namespace gptq::kernels
