// Better codes and scales than the loop finds, for the same layer, grid and file format.
//
// The loop decides each column once. With all columns decided, the loss tr(D H D') can only fall further: refit the
// scales with the codes fixed (least squares), and set each code to the best one with all else fixed (coordinate
// descent, as in QuantEase, Behdin et al. 2023, and CDQuant, Nair et al. 2024). Both work on E = D A, where H = A A' is
// the factorization that the loop has used already, so that the loss is just the sum of squares of E:
//
//   for each group g of columns, with S = A[g,:] and levels C[:,g] of the codes:              in code:
//     (1) the scale and zero point of row r, from  min |E[r,:] + dq[r,:] S|^2 over both          refit_row
//     (2) for each column k of g: the code nearest to  q + (E A')[:,k] / H[k,k]                  descend_row
//     (3) E = E - (Q' - Q)[:,g] S
//
// N output features, K input features, m columns of a group or of a part of it, L = K - (its first column).
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <numeric>
#include <span>
#include <utility>
#include <vector>

#include <gptq/concepts.hpp>
#include <gptq/evidence.hpp>
#include <gptq/factor.hpp>
#include <gptq/layer_error.hpp>
#include <gptq/matrix_view.hpp>
#include <gptq/options.hpp>
#include <gptq/quantize.hpp>
#include <gptq/quantized.hpp>
#include <gptq/round_to_nearest.hpp>
#include <gptq/solver_state.hpp>

namespace gptq {

namespace detail {

/// Rows of A that belong to some columns: S, and S' beside it.
struct gather_rows {
    matrix_view<const float> A;                // [K, K]
    matrix_view<const std::size_t> positions;  // [1, m]
    matrix_view<float> S;                      // [m, L], the last L columns of A
    matrix_view<float> St;                     // [L, m]
    constexpr void operator()(std::size_t i) const noexcept {
        const std::span<const float> row = A.row(positions(0, i)).last(S.cols);
        for (std::size_t j = 0; j < row.size(); ++j) S(i, j) = St(j, i) = row[j];
    }
};

/// Row r of D = W - Q, columns in their order.
template <int Bits, class Grid>
struct difference_row {
    matrix_view<float> D;                     // [N, K], the weights, replaced
    matrix_view<const std::uint8_t> codes;    // [N, K], original order
    group_parameters groups;                  // [N, G]
    matrix_view<const std::size_t> order;     // [1, K]
    matrix_view<const std::size_t> group_at;  // [1, K]
    Grid grid;
    constexpr void operator()(std::size_t r) const {
        for (std::size_t p = 0; p < D.cols; ++p)
            D(r, p) -= grid.template decode<Bits>(codes(r, order(0, p)), groups.get(r, group_at(0, p)));
    }
};

/// Row r of the levels of some columns' codes.
struct levels_row {
    matrix_view<const float> levels;           // [1, 256], of level_table
    matrix_view<const std::uint8_t> codes;     // [N, K], original order
    matrix_view<const std::size_t> order;      // [1, K]
    matrix_view<const std::size_t> positions;  // [1, m]
    matrix_view<float> C;                      // [N, m]
    constexpr void operator()(std::size_t r) const noexcept {
        for (std::size_t i = 0; i < C.cols; ++i) C(r, i) = levels(0, codes(r, order(0, positions(0, i))));
    }
};

/// What a change of a group's scale and zero point does to one row's loss. With q = s c - u (u = s zero), E changes by
/// -ds (C S) + du (1 S), so the loss changes by  ds^2 cc - 2 ds du co + du^2 oo - 2 ds ec + 2 du eo.
struct group_fit {
    double cc = 0.0, co = 0.0, oo = 0.0;  // products of C S, the levels' share, and 1 S, the ones' share
    double ec = 0.0, eo = 0.0;            // their products with E

    constexpr double change(double ds, double du) const {
        return ds * ds * cc - 2.0 * ds * du * co + du * du * oo - 2.0 * ds * ec + 2.0 * du * eo;
    }
    /// The change of the scale that is best while the zero point stays, from the parameters (s, zero).
    constexpr double scale_step(double zero) const {
        return (ec - zero * eo) / (cc - 2.0 * zero * co + zero * zero * oo);
    }
    /// As scale_step, once the zero point has become `next`, from E without the change.
    constexpr double scale_for(double s, double zero, double next) const {
        const double shift = s * (next - zero);  // du of the zero point alone
        const double slope = (ec - next * eo) + shift * (co - next * oo);
        return s + slope / (cc - 2.0 * next * co + next * next * oo);
    }
    /// The zero point, not yet rounded, that goes with the best pair.
    constexpr double best_zero(double s, double zero) const {
        const double determinant = cc * oo - co * co;
        const double ds = (ec * oo - eo * co) / determinant, du = (ec * co - eo * cc) / determinant;
        return (s * zero + du) / (s + ds);
    }
};

/// Step (1) for row r: new parameters for group g, where they lower the loss, and E that goes with them. Zero points
/// are chosen anew only where they are codes.
template <class Grid>
struct refit_row {
    matrix_view<float> E;         // [N, L]
    matrix_view<const float> CS;  // [N, L], levels times S
    matrix_view<const float> OS;  // [1, L], column sums of S
    group_parameters groups;      // [N, G]
    std::size_t g;
    int max_code;

    constexpr void operator()(std::size_t r) const {
        const group_fit fit = products(r);
        const grid_params now = groups.get(r, g);
        grid_params best = now;
        double best_change = 0.0;
        const auto consider = [&](double scale, double zero) {
            if (!(scale * double{now.scale} > 0.0) || !std::isfinite(scale)) return;  // 0, or turned round
            const grid_params p{Grid::storable(static_cast<float>(scale)), static_cast<std::uint8_t>(zero)};
            const auto [ds, du] = step(now, p);
            const double change = fit.change(ds, du);
            if (change < best_change) {
                best = p;
                best_change = change;
            }
        };
        consider(now.scale + fit.scale_step(now.zero), now.zero);
        if constexpr (AffineGrid<Grid> && !Grid::sym) {
            const double wanted = fit.best_zero(now.scale, now.zero);
            if (std::isfinite(wanted)) {
                const double zero = std::clamp(std::nearbyint(wanted), double{Grid::min_zero}, double(max_code));
                consider(fit.scale_for(now.scale, now.zero, zero), zero);
            }
        }
        if (best == now) return;
        const auto [ds, du] = step(now, best);
        const float a = static_cast<float>(-ds), b = static_cast<float>(du);
        for (std::size_t j = 0; j < E.cols; ++j) E(r, j) += a * CS(r, j) + b * OS(0, j);
        groups.set(r, g, best);
    }

 private:
    static constexpr std::pair<double, double> step(grid_params from, grid_params to) {
        return {double{to.scale} - double{from.scale}, double{to.scale} * to.zero - double{from.scale} * from.zero};
    }

    constexpr group_fit products(std::size_t r) const {
        group_fit fit;
        for (std::size_t j = 0; j < E.cols; ++j) {
            const double e = E(r, j), c = CS(r, j), o = OS(0, j);
            fit.cc += c * c;
            fit.co += c * o;
            fit.oo += o * o;
            fit.ec += e * c;
            fit.eo += e * o;
        }
        return fit;
    }
};

/// Step (2) for row r: one sweep over m columns. G becomes the change Q' - Q.
template <int Bits, class Grid>
struct descend_row {
    matrix_view<float> G;                      // [N, m], E S'; then Q' - Q
    matrix_view<const float> H;                // [m, m], S S'
    matrix_view<std::uint8_t> codes;           // [N, K], original order
    group_parameters groups;                   // [N, G]
    matrix_view<const std::size_t> order;      // [1, K]
    matrix_view<const std::size_t> positions;  // [1, m]
    std::size_t g;
    Grid grid;

    constexpr void operator()(std::size_t r) const {
        const grid_params params = groups.get(r, g);
        const std::span<float> gradient = G.row(r);
        for (std::size_t i = 0; i < gradient.size(); ++i) {
            std::uint8_t& code = codes(r, order(0, positions(0, i)));
            const float q = grid.template decode<Bits>(code, params);
            const std::uint8_t better = grid.template encode<Bits>(q + gradient[i] / H(i, i), params);
            const float change = better == code ? 0.0f : grid.template decode<Bits>(better, params) - q;
            code = better;
            if (change != 0.0f) {
                const std::span<const float> h = H.row(i);
                for (std::size_t j = i + 1; j < gradient.size(); ++j) gradient[j] -= change * h[j];
            }
            gradient[i] = change;
        }
    }
};

/// The columns of each group, in their order.
inline std::vector<std::vector<std::size_t>> positions_by_group(std::span<const std::size_t> group_at) {
    std::vector<std::vector<std::size_t>> groups(*std::max_element(group_at.begin(), group_at.end()) + 1);
    for (std::size_t p = 0; p < group_at.size(); ++p) groups[group_at[p]].push_back(p);
    return groups;
}

/// One layer while it is refined, in the backend's memory.
template <int Bits, class Grid, Backend B, FactorPath<B> P>
class refinement {
 public:
    /// W in the backend's memory. q outlives the refinement, which changes it.
    refinement(const factored_hessian<B, P>& f, matrix_view<const float> W, held_layer<B>& q, const Grid& grid)
        : f_(f),
          backend_(f.backend),
          grid_(grid),
          A_(backend_.template make_matrix<float>(W.cols, W.cols)),
          E_(backend_.template make_matrix<float>(W.rows, W.cols)),
          result_(q) {
        f.path.hessian_factor(backend_, f.factor.view(), A_.view());
        compute_errors(W);
    }

    double loss() const { return inner_product(backend_, E_.view(), E_.view()); }

    /// One pass over all groups.
    void sweep(const refine_options& options, std::size_t block) {
        const auto groups = positions_by_group(f_.group_at);
        for (std::size_t g = 0; g < groups.size(); ++g) {
            if constexpr (RefittableGrid<Grid, Bits>)
                if (options.scales) refit(g, groups[g]);
            if (!options.codes) continue;
            for (std::size_t i = 0; i < groups[g].size(); i += block)
                descend(g, std::span(groups[g]).subspan(i, std::min(block, groups[g].size() - i)));
        }
    }

 private:
    /// E = (W - Q) A.
    void compute_errors(matrix_view<const float> W) {
        const auto order = backend_.lend(row_of(f_.order)), group_at = backend_.lend(row_of(f_.group_at));
        auto D = ordered_copy(f_, W);
        backend_.for_each_row(W.rows, difference_row<Bits, Grid>{D.view(), result_.codes(), result_.groups(),
                                                                 order.view(), group_at.view(), grid_});
        backend_.multiply(E_.view(), D.view(), A_.view(), 1.0f, 0.0f);
    }

    /// The rows of A at some positions, from the first column where they are not 0.
    struct slab {
        backend_matrix<B, float> S, St;  // [m, L], [L, m]
        std::size_t first;
    };
    slab slab_of(std::span<const std::size_t> positions, matrix_view<const std::size_t> lent) const {
        const std::size_t first = positions.front(), m = positions.size(), L = f_.in_features() - first;
        slab s{backend_.template make_matrix<float>(m, L), backend_.template make_matrix<float>(L, m), first};
        backend_.for_each_row(m, gather_rows{A_.view(), lent, s.S.view(), s.St.view()});
        return s;
    }

    void refit(std::size_t g, const std::vector<std::size_t>& positions) {
        const auto lent = backend_.lend(row_of(positions));
        const auto order = backend_.lend(row_of(f_.order));
        const auto table = level_table(levels_of<Bits>(grid_));
        const auto levels = backend_.lend(matrix_view<const float>(table.data(), 1, table.size()));
        const slab s = slab_of(positions, lent.view());
        const auto E = E_.view().columns(s.first, f_.in_features());
        auto C = backend_.template make_matrix<float>(E.rows, positions.size());
        auto CS = backend_.template make_matrix<float>(E.rows, E.cols);
        auto ones = backend_.template make_matrix<float>(1, positions.size());
        auto OS = backend_.template make_matrix<float>(1, E.cols);
        backend_.for_each_row(E.rows, levels_row{levels.view(), result_.codes(), order.view(), lent.view(), C.view()});
        backend_.for_each_row(1, fill_row{ones.view(), 1.0f});
        backend_.multiply(CS.view(), C.view(), s.S.view(), 1.0f, 0.0f);
        backend_.multiply(OS.view(), ones.view(), s.S.view(), 1.0f, 0.0f);
        backend_.for_each_row(E.rows, refit_row<Grid>{E, CS.view(), OS.view(), result_.groups(), g, (1 << Bits) - 1});
    }

    void descend(std::size_t g, std::span<const std::size_t> positions) {
        const auto lent = backend_.lend(matrix_view<const std::size_t>(positions.data(), 1, positions.size()));
        const auto order = backend_.lend(row_of(f_.order));
        const slab s = slab_of(positions, lent.view());
        const auto E = E_.view().columns(s.first, f_.in_features());
        auto H = backend_.template make_matrix<float>(positions.size(), positions.size());
        auto G = backend_.template make_matrix<float>(E.rows, positions.size());
        backend_.multiply(H.view(), s.S.view(), s.St.view(), 1.0f, 0.0f);
        backend_.multiply(G.view(), E, s.St.view(), 1.0f, 0.0f);
        backend_.for_each_row(E.rows, descend_row<Bits, Grid>{G.view(), H.view(), result_.codes(), result_.groups(),
                                                              order.view(), lent.view(), g, grid_});
        backend_.multiply(E, G.view(), s.S.view(), -1.0f, 1.0f);  // (3)
    }

    const factored_hessian<B, P>& f_;
    const B& backend_;
    Grid grid_;
    backend_matrix<B, float> A_;  // [K, K], H = A A'
    backend_matrix<B, float> E_;  // [N, K]
    held_layer<B>& result_;
};

}  // namespace detail

/// Lowers the loss of a quantized layer q in place: W [N, K] are the weights it stands for, f the factored Hessian that
/// it was quantized with, all in the backend's memory. Works after quantize() and after round_to_nearest(), for every
/// order and grid; scales are refitted where the grid is a RefittableGrid. The loss tr(D H_damped D'), which it
/// returns, never rises, except by the last bits of floats. Cost: up to 6 N K^2 flops a round; memory: 2 N K + K^2
/// floats.
template <int Bits, class Grid, Backend B, FactorPath<B> P>
requires QuantGrid<Grid, Bits>
double refine(in_backend_t, matrix_view<const float> W, const factored_hessian<B, P>& f, held_layer<B>& q,
              const quantize_options& options, const Grid& grid = {}) {
    detail::refinement<Bits, Grid, B, P> run(f, W, q, grid);
    for (int round = 0; round < options.refine.rounds; ++round) run.sweep(options.refine, options.block_size);
    return run.loss();
}

/// The same in host memory. Throws shape_error where shapes do not fit, non_finite_error for weights that are NaN or
/// infinite.
template <int Bits, class Grid, Backend B, FactorPath<B> P>
requires QuantGrid<Grid, Bits>
double refine(matrix_view<const float> W, const factored_hessian<B, P>& f, quantized_view q,
              const quantize_options& options, const Grid& grid = {}) {
    return detail::through_host(f, W, q, [&](matrix_view<const float> weights, held_layer<B>& held) {
        held.upload({q.codes, q.scales, q.zeros, q.g_idx});
        return refine<Bits>(in_backend, weights, f, held, options, grid);
    });
}

/// solve(), and refine() where options.refine asks for it and there was a factor.
template <int Bits, class Grid, Backend B, FactorPath<B> P, Observer O>
requires QuantGrid<Grid, Bits> solve_report solve_and_refine(in_backend_t, matrix_view<const float> W,
                                                             const factored_hessian<B, P>& f, held_layer<B>& out,
                                                             const quantize_options& options, O& observer,
                                                             const Grid& grid = {}) {
    solve_report report = solve<Bits>(in_backend, W, f, out, options, observer, grid);
    if (options.refine.rounds > 0 && !report.rounded_to_nearest)
        report.loss = refine<Bits>(in_backend, W, f, out, options, grid);
    if (f.measured && !report.rounded_to_nearest) detail::keep_better<Bits>(f, W, out, report, grid);
    return report;
}

/// The same in host memory. Throws shape_error where shapes do not fit, non_finite_error for NaN and infinity in W.
template <int Bits, class Grid, Backend B, FactorPath<B> P, Observer O>
requires QuantGrid<Grid, Bits> solve_report solve_and_refine(matrix_view<const float> W,
                                                             const factored_hessian<B, P>& f, quantized_view out,
                                                             const quantize_options& options, O& observer,
                                                             const Grid& grid = {}) {
    return detail::through_host(f, W, out, [&](matrix_view<const float> weights, held_layer<B>& held) {
        return solve_and_refine<Bits>(in_backend, weights, f, held, options, observer, grid);
    });
}

}  // namespace gptq
