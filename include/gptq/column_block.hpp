// What the loop of <gptq/quantize.hpp> hands to its rule: a block of columns, and how a layer is cut into blocks.
#pragma once

#include <algorithm>
#include <cstddef>
#include <span>

#include <gptq/matrix_view.hpp>

namespace gptq {

/// A block of b columns of a layer of N rows on its way through the loop, in the backend's memory. A rule chooses a
/// value q for each weight of T and leaves the matrices as settle() does, row by row.
struct column_block {
    matrix_view<float> T;            ///< [N, b] weights, all errors of earlier blocks fed back; becomes Err
    matrix_view<float> W;            ///< [N, b] weights as the solver has kept them; becomes D = W - Q
    matrix_view<const float> U;      ///< [b, b] diagonal block of U, U'U = H^-1
    matrix_view<const float> costs;  ///< [1, b] 1/U[k,k]^2, the loss of a unit error
    matrix_view<double> loss;        ///< [N, 1] gets the squared errors added
    std::size_t first;               ///< position of the block's first column among the layer's

    /// Steps (5) and (6) for row r: column i gets the value q, and the columns after it take its error along.
    constexpr void settle(std::size_t r, std::size_t i, float q) const {
        const std::span<float> w = T.row(r);
        const std::span<const float> u = U.row(i);
        W(r, i) -= q;
        const float err = (w[i] - q) / u[i];                                // (5)
        for (std::size_t j = i + 1; j < w.size(); ++j) w[j] -= err * u[j];  // (6)
        w[i] = err;
        loss(r, 0) += double{err} * double{err};
    }
};

/// Blocks whose errors are fed back to the rest of the layer by one product.
inline constexpr std::size_t blocks_per_super_block = 4;

/// How K columns are cut into blocks, and blocks gathered into super-blocks. The `group` columns that belong together
/// lie in one block if they fit into one, and otherwise in several whole blocks.
struct column_cuts {
    std::size_t columns;    ///< K
    std::size_t block;      ///< columns of a block, at most
    std::size_t group = 1;  ///< columns that belong together; 1: blocks may end anywhere

    std::size_t super_block() const { return std::min(blocks_per_super_block * block, columns); }

    /// Where a super-block ends that begins at `first`.
    std::size_t super_block_end(std::size_t first) const { return end(first, super_block()); }
    /// Where a block ends that begins at `begin` in a super-block that ends at `last`.
    std::size_t block_end(std::size_t begin, std::size_t last) const { return std::min(end(begin, block), last); }

 private:
    /// Where `count` columns from `first` on end: never inside a group that starts in a block, nor beyond a larger
    /// group.
    std::size_t end(std::size_t first, std::size_t count) const {
        if (group <= block) return std::min(first + count / group * group, columns);
        return std::min({first + count, (first / group + 1) * group, columns});
    }
};

}  // namespace gptq
