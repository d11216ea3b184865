// GPTQ: algorithm 1 of Frantar, Ashkboos, Hoefler, Alistarh, "GPTQ: Accurate Post-Training Quantization for Generative
// Pre-trained Transformers" (ICLR 2023), on any backend. The steps carry the paper's order; docs/algorithm.md explains.
//
//   for each block of columns:                                                         in code:
//     (1) take the block with all earlier errors fed back                                path.current
//     (2) for each column k of the block:                                                quantize_row
//         (3) fit the grid of the group that starts at k, to up-to-date weights
//         (4) Q[:,k]   = quant(W[:,k])
//         (5) Err[:,k] = (W[:,k] - Q[:,k]) / U[k,k]
//         (6) W[:,k:]  = W[:,k:] - Err[:,k] U[k,k:]            within the block
//     (7) feed the block's errors back into the columns after it                         path.leave
//
// Few large products are faster than many small ones: errors go back at (7) after a stretch of some blocks, and what the
// blocks of the same stretch have left is added at (1).
//
// U is the upper Cholesky factor of the inverse Hessian (U'U = H^-1); N output features, K input features, G groups.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>

#include <gptq/concepts.hpp>
#include <gptq/factor.hpp>
#include <gptq/held_layer.hpp>
#include <gptq/k_best.hpp>
#include <gptq/matrix_view.hpp>
#include <gptq/options.hpp>
#include <gptq/quantized.hpp>
#include <gptq/round_to_nearest.hpp>
#include <gptq/solver_state.hpp>

namespace gptq {

namespace detail {

/// Steps (2) to (6) for row r of one block of b columns; rows do not depend on each other.
template <int Bits, class Grid>
struct quantize_row {
    matrix_view<float> T;                     // [N, b], up-to-date weights; column i becomes Err once it is quantized
    matrix_view<float> W;                     // [N, K], becomes D = W - Q
    matrix_view<const float> U;               // [b, b], the diagonal block of U
    matrix_view<const float> costs;           // [1, b], 1/U[k,k]^2
    group_parameters groups;                  // [N, G] scales and zeros
    matrix_view<std::uint8_t> codes;          // [N, K], columns in their order, as in W
    matrix_view<double> loss;                 // [N, 1]
    matrix_view<const std::size_t> group_at;  // [1, K]
    std::size_t first;                        // the block's first position
    bool fit_groups;                          // whether groups that start in this block still need their grids
    Grid grid;

    constexpr void operator()(std::size_t r) const noexcept {
        for (std::size_t i = 0; i < T.cols; ++i) {  // (2)
            if (starts_group(i)) fit(r, i);
            settle(r, i, grid.template encode<Bits>(T(r, i), params(r, i)));  // (4)
        }
    }

    constexpr bool starts_group(std::size_t i) const noexcept {
        return fit_groups && (i == 0 || group_at(0, first + i - 1) != group_at(0, first + i));
    }
    constexpr grid_params params(std::size_t r, std::size_t i) const noexcept {
        return groups.get(r, group_at(0, first + i));
    }
    constexpr void fit(std::size_t r, std::size_t i) const noexcept {  // (3)
        const std::size_t k = first + i, n = group_length(k, T.cols - i);
        groups.set(r, group_at(0, k), fit_group<Bits>(grid, T.row(r).subspan(i, n), costs.row(0).subspan(i, n)));
    }
    constexpr void settle(std::size_t r, std::size_t i, std::uint8_t code) const noexcept {
        const std::span<float> w = T.row(r);
        const std::span<const float> u = U.row(i);
        const float q = grid.template decode<Bits>(code, params(r, i));
        codes(r, first + i) = code;
        W(r, first + i) -= q;
        const float err = (w[i] - q) / u[i];                                // (5)
        for (std::size_t j = i + 1; j < w.size(); ++j) w[j] -= err * u[j];  // (6)
        w[i] = err;
        loss(r, 0) += double{err} * double{err};
    }
    constexpr std::size_t group_length(std::size_t k, std::size_t limit) const noexcept {
        return leading_equal(group_at.row(0).subspan(k, limit));
    }
};

}  // namespace detail

/// Quantizes a layer W [N, K], in the backend's memory, with the factored Hessian of its inputs into `result`.
/// Time: N K^2 flops in matrix products, N K block_size in the loop; memory: W once more in float.
/// Where the Hessian could not be factored the layer is rounded to nearest, and the report says so.
template <int Bits, class Grid, Backend B, FactorPath<B> P, Observer O>
requires QuantGrid<Grid, Bits> solve_report solve(in_backend_t, matrix_view<const float> weights,
                                                  const factored_hessian<B, P>& f, held_layer<B>& result,
                                                  const quantize_options& options, O& observer, const Grid& grid = {}) {
    const std::size_t N = weights.rows, K = weights.cols;
    solve_report report = detail::begin_report(f, options);
    result.template made_by<Bits>(grid);
    const B& backend = f.backend;
    if (!f.positive_definite) {
        round_to_nearest_into<Bits>(in_backend, backend, weights, f.group_features, result, grid);
        return report;
    }
    const auto order = backend.lend(detail::row_of(f.order)), group_at = backend.lend(detail::row_of(f.group_at));
    const auto dead = backend.lend(detail::row_of(f.dead));
    auto W = backend.template make_matrix<float>(N, K);  // [N, K], columns in their order
    backend.for_each_row(N, detail::gather_row{weights, W.view(), order.view(), dead.view()});

    if (f.static_groups) detail::fit_static_groups<Bits>(f, weights, result.groups(), grid);

    const std::size_t block = std::min(options.block_size, K);
    const std::size_t stretch = std::min(detail::blocks_per_stretch * block, K);
    const detail::column_cuts cuts{K, block, f.group_features, f.static_groups};
    auto S = backend.template make_matrix<float>(N, stretch);    // [N, s] up-to-date weights, then their errors
    auto U = backend.template make_matrix<float>(block, block);  // [b, b] diagonal block of U
    auto loss = backend.template make_matrix<double>(N, 1);      // [N, 1]
    const matrix_view<const float> costs = f.costs.view();       // [1, K]
    const bool fit_in_block = !f.static_groups && f.group_features <= block;
    for (std::size_t first = 0, last = 0; first < K; first = last) {  // a stretch of blocks
        last = cuts.end(first, stretch);
        const auto Ss = S.view().columns(0, last - first);                       // [N, s]
        if (!f.static_groups && !fit_in_block && first % f.group_features == 0)  // (3) for groups wider than a block
            detail::fit_wide_group<Bits>(f, W.view(), first, result.groups(), grid);
        f.path.enter(backend, f.factor.view(), W.view(), first, Ss);
        for (std::size_t begin = first, end = 0; begin < last; begin = end) {  // a block
            end = std::min(cuts.end(begin, block), last);
            const auto T = Ss.columns(begin - first, end - first);                      // [N, b]
            const auto Ub = U.view().block(0, end - begin, 0, end - begin);             // [b, b]
            f.path.current(backend, f.factor.view(), W.view(), first, Ss, begin, end);  // (1)
            f.path.diagonal_block(backend, f.factor.view(), begin, end, Ub);
            detail::for_each_row<Bits>(backend, N, options.candidates,
                                       detail::quantize_row<Bits, Grid>{
                                           T, W.view(), Ub, costs.columns(begin, end), result.groups(), result.codes(),
                                           loss.view(), group_at.view(), begin, fit_in_block, grid});  // (2) to (6)
            observer.on_columns(end, K);
        }
        f.path.leave(backend, f.factor.view(), W.view(), first, Ss);  // (7)
    }
    result.restore_columns(f.order);
    for (std::size_t p = 0; p < K; ++p) result.g_idx()[f.order[p]] = static_cast<std::int32_t>(f.group_at[p]);
    report.loss = detail::total(backend, loss.view());
    return report;
}

}  // namespace gptq
