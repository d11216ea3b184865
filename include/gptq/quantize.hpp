// GPTQ: algorithm 1 of Frantar, Ashkboos, Hoefler, Alistarh, "GPTQ: Accurate Post-Training Quantization for Generative
// Pre-trained Transformers" (ICLR 2023), on any backend. The steps carry the paper's order; docs/algorithm.md explains.
//
//   for each block of columns:                                                         in code:
//     (1) take the block with all earlier errors fed back                                path.current
//     (2) for each column k of the block:                                                the rule
//         (3) fit the grid of the group that starts at k, to up-to-date weights
//         (4) Q[:,k]   = quant(W[:,k])
//         (5) Err[:,k] = (W[:,k] - Q[:,k]) / U[k,k]
//         (6) W[:,k:]  = W[:,k:] - Err[:,k] U[k,k:]            within the block
//     (7) feed the block's errors back into the columns after it                         path.leave
//
// Whoever wants to read all of GPTQ reads six files, in this order:
//
//   hessian.hpp         H = (2/T) X'X from the inputs of a layer
//   factor.hpp          order of the columns, damping, U with U'U = H^-1; what (1) and (7) do
//   quantize.hpp        this file: the loop, and a layer on its way through it
//   column_block.hpp    a block, steps (5) and (6), and where blocks end
//   round_to_grid.hpp   the rule, steps (2) to (6); other rules are in k_best.hpp and prune.hpp
//   grids/affine.hpp    the values that a weight can take, steps (3) and (4)
//
// Few large products are faster than many small ones. Four blocks make a super-block: its errors go back to the rest of
// the layer at once, at (7), and each of its blocks gets at (1) what the blocks before it in the super-block have left.
//
// N output features, K input features, a super-block of s columns from `first` to `last`, a block of b columns in it:
//
//                 first         begin   end           last
//   W [N, K]  ------+-------------+-------+-------------+------------------     the solver's working copy
//             D=W-Q |    D = W-Q  |  W    |   W         |  W
//   S [N, s]        +-------------+-------+-------------+                       of this super-block
//                   |    Err      |  T    |  the path's |
//   T [N, b]                      +-------+                                     the block, a part of S
//                                 | up to |  weights when the rule gets it, Err when it returns
//                                 | date  |
//   U [b, b]                      +-------+                                     the block's part of U's diagonal
//
// In the columns of W that are not yet through, the paper's path keeps weights with the errors of earlier super-blocks
// fed back; the path without an inverse keeps the original weights there, since it computes from D what they lack.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>

#include <gptq/column_block.hpp>
#include <gptq/concepts.hpp>
#include <gptq/factor.hpp>
#include <gptq/held_layer.hpp>
#include <gptq/layer_error.hpp>
#include <gptq/matrix_view.hpp>
#include <gptq/options.hpp>
#include <gptq/quantized.hpp>
#include <gptq/round_to_grid.hpp>
#include <gptq/round_to_nearest.hpp>
#include <gptq/solver_state.hpp>

namespace gptq {

/// Takes W [N, K], in the backend's memory, its columns in f's order, block by block through `rule`, a BlockRule, and
/// leaves D = W - Q in it. Returns the sum of squared errors, tr(D H_damped D'). Time: N K^2 flops in matrix products
/// and what the rule takes; memory: N columns of a super-block. Throws what rule and observer throw.
template <Backend B, FactorPath<B> P, BlockRule Rule, Observer O>
double solve_columns(const factored_hessian<B, P>& f, matrix_view<float> W, const column_cuts& cuts, const Rule& rule,
                     O& observer) {
    const B& backend = f.backend;
    const std::size_t N = W.rows, K = W.cols;
    const matrix_view<const float> F = f.factor.view(), costs = f.costs.view();  // [K, K], [1, K]
    auto S = backend.template make_matrix<float>(N, cuts.super_block());         // [N, s]
    auto U = backend.template make_matrix<float>(cuts.block, cuts.block);        // [b, b]
    auto loss = backend.template make_matrix<double>(N, 1);                      // [N, 1]
    for (std::size_t first = 0, last = 0; first < K; first = last) {             // a super-block
        last = cuts.super_block_end(first);
        const auto Ss = S.view().columns(0, last - first);  // [N, s]
        f.path.enter(backend, F, W, first, Ss);
        for (std::size_t begin = first, end = 0; begin < last; begin = end) {  // a block
            end = cuts.block_end(begin, last);
            const auto T = Ss.columns(begin - first, end - first);           // [N, b]
            const auto Ub = U.view().block(0, end - begin, 0, end - begin);  // [b, b]
            f.path.current(backend, F, W, first, Ss, begin, end);            // (1)
            f.path.diagonal_block(backend, F, begin, end, Ub);
            rule(column_block{T, W.columns(begin, end), Ub, costs.columns(begin, end), loss.view(), begin});  // (2)-(6)
            observer.on_columns(end, K);
        }
        f.path.leave(backend, F, W, first, Ss);  // (7)
    }
    return detail::total(backend, loss.view());
}

/// Quantizes a layer W [N, K], in the backend's memory, with the factored Hessian of its inputs into `result`.
/// Time: N K^2 flops in matrix products, N K block_size in the loop; memory: W once more in float.
/// Where the Hessian could not be factored, or errors overflow a float on their way, the layer is rounded to nearest,
/// and the report says so. Throws option_error for options out of range, concept_error for a grid whose scales are
/// unusable.
template <int Bits, class Grid, Backend B, FactorPath<B> P, Observer O>
requires QuantGrid<Grid, Bits> solve_report solve(in_backend_t, matrix_view<const float> weights,
                                                  const factored_hessian<B, P>& f, held_layer<B>& result,
                                                  const quantize_options& options, O& observer, const Grid& grid = {}) {
    solve_report report = detail::begin_report(f, options);
    result.template made_by<Bits>(grid);
    if (f.positive_definite) {
        auto W = detail::ordered_copy(f, weights);  // [N, K], columns in their order
        if (f.static_groups) detail::fit_static_groups<Bits>(f, weights, result.groups(), grid);
        const round_to_grid<Bits, Grid, B, P> rule(f, W.view(), result, options, grid);
        report.loss = solve_columns(f, W.view(), rule.cuts(), rule, observer);
    }
    if (!f.positive_definite || !std::isfinite(report.loss))
        return detail::round_instead<Bits>(f, weights, result, grid, report);
    return detail::finish_layer(f, result, report);
}

}  // namespace gptq
