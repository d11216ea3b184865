// What the solver does where calibration tokens are few.
//
// With fewer tokens than inputs H is singular. Some directions then have no loss on these tokens, although they have
// one on other texts, and the loop moves errors into these directions. Two things guard against it. The elements beside
// H's diagonal, which say where errors may go, lose a share that grows as tokens become fewer. And of the loop's result
// and rounding to nearest, the one with the smaller error by the measured H is kept.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <utility>

#include <gptq/concepts.hpp>
#include <gptq/factor.hpp>
#include <gptq/held_layer.hpp>
#include <gptq/layer_error.hpp>
#include <gptq/matrix_view.hpp>
#include <gptq/quantized.hpp>
#include <gptq/round_to_nearest.hpp>

namespace gptq::detail {

/// Row r of W - Q.
template <int Bits, class Grid>
struct remainder_row {
    matrix_view<const float> W;             // [N, K]
    matrix_view<const std::uint8_t> codes;  // [N, K]
    group_parameters groups;                // [N, G]
    matrix_view<const std::int32_t> g_idx;  // [1, K]
    matrix_view<float> D;                   // [N, K]
    Grid grid;
    constexpr void operator()(std::size_t r) const {
        for (std::size_t k = 0; k < D.cols; ++k)
            D(r, k) =
                W(r, k) - grid.template decode<Bits>(codes(r, k), groups.get(r, static_cast<std::size_t>(g_idx(0, k))));
    }
};

/// tr(D H D') of a quantized layer, H as it was measured. f has kept it.
template <int Bits, class Grid, Backend B, class P>
double measured_error(const factored_hessian<B, P>& f, matrix_view<const float> W, held_layer<B>& q, const Grid& grid) {
    auto D = f.backend.template make_matrix<float>(W.rows, W.cols);  // [N, K]
    const auto g_idx = f.backend.lend(matrix_view<const std::int32_t>(q.g_idx().data(), 1, q.g_idx().size()));
    f.backend.for_each_row(W.rows, remainder_row<Bits, Grid>{W, q.codes(), q.groups(), g_idx.view(), D.view(), grid});
    return weighted_squares(f.backend, D.view(), f.measured->view());
}

/// Replaces q by the layer rounded to nearest where the error of the latter is smaller; the report says so.
template <int Bits, class Grid, Backend B, class P>
void keep_better(const factored_hessian<B, P>& f, matrix_view<const float> W, held_layer<B>& q, solve_report& report,
                 const Grid& grid) {
    held_layer<B> rounded(f.backend, W.rows, W.cols, q.groups().scales.cols);
    round_to_nearest_into<Bits>(in_backend, f.backend, W, f.group_features, rounded, grid);
    if (measured_error<Bits>(f, W, q, grid) <= measured_error<Bits>(f, W, rounded, grid)) return;
    q = std::move(rounded);
    report.rounded_to_nearest = true;
    report.loss = 0.0;
}

}  // namespace gptq::detail
