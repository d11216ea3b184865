// The rule of GPTQ for <gptq/quantize.hpp>: every weight of a block becomes the nearest value of its group's grid, or
// the value that K-best search finds.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include <gptq/column_block.hpp>
#include <gptq/concepts.hpp>
#include <gptq/factor.hpp>
#include <gptq/fit_groups.hpp>
#include <gptq/held_layer.hpp>
#include <gptq/k_best.hpp>
#include <gptq/matrix_view.hpp>
#include <gptq/options.hpp>
#include <gptq/quantized.hpp>
#include <gptq/solver_state.hpp>

namespace gptq {

/// The argument of Backend's optional quantize_block: a block of b columns, and everything that is needed to round it.
template <int Bits, class Grid>
struct block_to_quantize : column_block {
    group_parameters groups;                  ///< [N, G] scales and zeros
    matrix_view<std::uint8_t> codes;          ///< [N, b]
    matrix_view<const std::size_t> group_at;  ///< [1, b], the group of each column
    bool fits_groups;                         ///< whether groups that start in this block still need their grids
    std::size_t candidates;                   ///< of K-best search; 1: none, each weight to the nearest value
    Grid grid;                                ///< the values that a weight can take

    constexpr bool starts_group(std::size_t i) const {
        return fits_groups && (i == 0 || group_at(0, i - 1) != group_at(0, i));
    }
    /// How many of the columns from i on are in one group.
    constexpr std::size_t group_length(std::size_t i) const {
        std::size_t n = 1;
        while (i + n < T.cols && group_at(0, i + n) == group_at(0, i)) ++n;
        return n;
    }
    constexpr grid_params params(std::size_t r, std::size_t i) const { return groups.get(r, group_at(0, i)); }
    /// Step (3) for row r: the grid of the group whose columns begin at i.
    constexpr void fit(std::size_t r, std::size_t i) const {
        const std::size_t n = group_length(i);
        groups.set(r, group_at(0, i), fit_group<Bits>(grid, T.row(r).subspan(i, n), costs.row(0).subspan(i, n)));
    }
    /// Steps (4) to (6) for row r: column i gets a code.
    constexpr void settle_code(std::size_t r, std::size_t i, std::uint8_t code) const {
        codes(r, i) = code;
        settle(r, i, grid.template decode<Bits>(code, params(r, i)));
    }
};

/// Steps (2) to (6) for row r of a block; rows do not depend on each other.
template <int Bits, class Grid>
struct quantize_row {
    block_to_quantize<Bits, Grid> block;

    constexpr void operator()(std::size_t r) const {
        for (std::size_t i = 0; i < block.T.cols; ++i) {  // (2)
            if (block.starts_group(i)) block.fit(r, i);   // (3)
            block.settle_code(r, i, block.grid.template encode<Bits>(block.T(r, i), block.params(r, i)));
        }
    }
};

/// What quantize_block does on a backend that has no such operation of its own.
template <int Bits, class Grid, Backend B>
void quantize_rows(const B& backend, const block_to_quantize<Bits, Grid>& block) {
    if (block.candidates == 1)
        backend.for_each_row(block.T.rows, quantize_row<Bits, Grid>{block});
    else
        backend.for_each_row(block.T.rows, k_best_row<Bits, block_to_quantize<Bits, Grid>>{block});
}

/// Rounds a block on the backend: by its own operation where it has one.
template <int Bits, class Grid, Backend B>
void quantize_block(const B& backend, const block_to_quantize<Bits, Grid>& block) {
    if constexpr (requires { backend.quantize_block(block); })
        backend.quantize_block(block);
    else
        quantize_rows(backend, block);
}

/// The rule: grids and codes of a layer W [N, K] go to `result`, codes in the order of the loop's columns.
template <int Bits, class Grid, Backend B, FactorPath<B> P>
class round_to_grid {
 public:
    /// W: the solver's working copy, in the backend's memory. All arguments outlive the rule.
    round_to_grid(const factored_hessian<B, P>& f, matrix_view<const float> W, held_layer<B>& result,
                  const quantize_options& options, const Grid& grid)
        : f_(f), W_(W), result_(result), options_(options), grid_(grid), group_at_(f.backend.lend(group_row(f))) {}

    /// A group that starts in a block may not end outside of it, unless it is larger than a block.
    column_cuts cuts() const {
        return {W_.cols, std::min(options_.block_size, W_.cols), f_.static_groups ? 1 : f_.group_features};
    }

    void operator()(const column_block& block) const { quantize_block(f_.backend, prepare(block)); }

    /// Everything that is needed to round the block. The grid of a group that is larger than a block is fitted here,
    /// when the loop reaches its first column.
    block_to_quantize<Bits, Grid> prepare(const column_block& block) const {
        const std::size_t first = block.first, end = first + block.T.cols;
        const bool wide = f_.group_features > cuts().block;
        if (!f_.static_groups && wide && first % f_.group_features == 0)  // (3)
            detail::fit_wide_group<Bits>(f_, W_, first, result_.groups(), grid_);
        return {{block},
                result_.groups(),
                result_.codes().columns(first, end),
                group_at_.view().columns(first, end),
                !f_.static_groups && !wide,
                options_.candidates,
                grid_};
    }

 private:
    static matrix_view<const std::size_t> group_row(const factored_hessian<B, P>& f) {
        return detail::row_of(f.group_at);
    }

    const factored_hessian<B, P>& f_;
    matrix_view<const float> W_;
    held_layer<B>& result_;
    const quantize_options& options_;
    const Grid& grid_;
    decltype(std::declval<const B&>().lend(std::declval<matrix_view<const std::size_t>>())) group_at_;  // [1, K]
};

}  // namespace gptq
