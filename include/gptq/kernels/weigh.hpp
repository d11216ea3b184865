// Sums of rows, each times a number: what attention consists of. What a kernel for it is given.
#pragma once

#include <cstddef>

namespace gptq::kernels {

inline constexpr std::size_t weigh_lanes = 16;    ///< columns that a kernel takes at a time
inline constexpr std::size_t weigh_together = 6;  ///< sums that read each row together: 16 registers hold no more

/// Rows of earlier tokens have left the caches since they were last used, and a head's part of each is too short for
/// processors to see what comes next: they are asked for as many rows ahead.
inline constexpr std::size_t rows_ahead = 16;

/// sums = weights · rows.        weights [1 or weigh_together, count]   rows [count, columns]   sums as many [columns]
struct weighed_rows {
    const float* weights;
    std::size_t weights_ld;  ///< floats from the weights of one sum to the weights of the next
    const float* rows;
    std::size_t rows_ld;
    float* sums;
    std::size_t sums_ld;
    std::size_t count;
    std::size_t columns;  ///< a multiple of weigh_lanes
};

/// The kernels of weighted sums for one instruction set.
struct weigh_kernels {
    void (*one)(const weighed_rows& of);       ///< a single sum
    void (*together)(const weighed_rows& of);  ///< weigh_together of them
};

}  // namespace gptq::kernels
