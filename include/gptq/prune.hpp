// Pruning, and pruning with quantization, as rules of the loop in <gptq/quantize.hpp>: "SparseGPT: Massive Language
// Models Can Be Accurately Pruned in One-Shot" (Frantar and Alistarh, 2023).
//
// A weight that goes is rounded to 0, and its error goes to the columns after it like any other error. The loss grows
// by w^2 / U[k,k]^2, and the weights for which it grows least go:
//
//   n:m            of every m neighbours in a row, n stay; chosen when the loop reaches the first of them
//   unstructured   of a block of columns a share goes, in all rows together; chosen when the loop reaches the block
//
// N output features, K input features, blocks of b columns.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include <gptq/column_block.hpp>
#include <gptq/concepts.hpp>
#include <gptq/error.hpp>
#include <gptq/factor.hpp>
#include <gptq/held_layer.hpp>
#include <gptq/matrix_view.hpp>
#include <gptq/options.hpp>
#include <gptq/quantize.hpp>
#include <gptq/quantized.hpp>
#include <gptq/round_to_grid.hpp>
#include <gptq/round_to_nearest.hpp>
#include <gptq/solver_state.hpp>

namespace gptq {

/// Which weights of a layer become 0: a share of each block of columns, or all but `kept` of every `of` neighbours.
struct sparsity_pattern {
    double share = 0.0;    ///< in [0, 1); read where `of` is 0
    std::size_t kept = 0;  ///< less than `of`
    std::size_t of = 0;    ///< 0: unstructured

    /// Unstructured: `share` of the weights go.
    static sparsity_pattern unstructured(double share) { return {.share = share}; }
    /// `kept` of every `of` neighbouring weights of a row stay.
    static sparsity_pattern structured(std::size_t kept, std::size_t of) { return {.kept = kept, .of = of}; }

    friend bool operator==(const sparsity_pattern&, const sparsity_pattern&) = default;
};

/// A pattern known at compile time: N of every M neighbouring weights of a row stay, as in sparsity<2, 4>, which GPUs
/// multiply at twice the speed.
template <std::size_t N, std::size_t M>
struct sparsity {
    static_assert(0 < N && N < M, "gptq::sparsity<N, M>: N of every M weights stay, at least one and not all");
    static constexpr sparsity_pattern pattern{.kept = N, .of = M};
};

/// Throws option_error for a pattern with impossible numbers, and where K is no multiple of the pattern's neighbours.
inline void check_pattern(const sparsity_pattern& pattern, std::size_t K) {
    if (pattern.of == 0) {
        if (!(pattern.share >= 0.0 && pattern.share < 1.0))
            throw option_error("sparsity: " + std::to_string(pattern.share) + " is not a share of weights in [0, 1)");
        return;
    }
    const std::string name = std::to_string(pattern.kept) + ":" + std::to_string(pattern.of);
    if (pattern.kept == 0 || pattern.kept >= pattern.of)
        throw option_error("sparsity " + name + ": of every " + std::to_string(pattern.of) +
                           " weights at least one stays, and not all");
    if (K % pattern.of != 0)
        throw option_error("sparsity " + name + ": " + std::to_string(K) + " input features are no multiple of " +
                           std::to_string(pattern.of));
}

namespace detail {

/// The loss of a 0 in place of the weight in row r and column i.
constexpr float cost_of_zero(const column_block& block, std::size_t r, std::size_t i) {
    return block.T(r, i) * block.T(r, i) * block.costs(0, i);
}

struct cost_of_zero_row {
    column_block block;
    matrix_view<float> scores;  // [N, b]
    constexpr void operator()(std::size_t r) const noexcept {
        for (std::size_t i = 0; i < scores.cols; ++i) scores(r, i) = cost_of_zero(block, r, i);
    }
};

/// Which weights of a block stay. Where the pattern is n:m, row by row, chosen on the way.
struct block_mask {
    matrix_view<std::uint8_t> stays;  // [N, b], 1 for a weight that stays
    std::size_t kept, of;             // as in sparsity_pattern

    /// Called for every column i, once all errors before it are fed back.
    constexpr void reach(const column_block& block, std::size_t r, std::size_t i) const {
        if (of == 0 || i % of != 0) return;
        for (std::size_t j = i; j < i + of; ++j) {
            const float cost = cost_of_zero(block, r, j);
            std::size_t before = 0;  // neighbours that are kept before this one; of equal scores, the earlier
            for (std::size_t other = i; other < i + of; ++other) {
                const float of_other = cost_of_zero(block, r, other);
                before += of_other > cost || (of_other == cost && other < j) ? 1 : 0;
            }
            stays(r, j) = before < kept ? 1 : 0;
        }
    }
};

/// Steps (2), (5) and (6) for row r of a block: a weight keeps its value or becomes 0.
struct prune_row {
    column_block block;
    block_mask mask;
    matrix_view<float> values;                // [N, K], original order
    matrix_view<const std::size_t> position;  // [1, b], original columns
    constexpr void operator()(std::size_t r) const noexcept {
        for (std::size_t i = 0; i < block.T.cols; ++i) {
            mask.reach(block, r, i);
            const float q = mask.stays(r, i) ? block.T(r, i) : 0.0f;
            values(r, position(0, i)) = q;
            block.settle(r, i, q);
        }
    }
};

/// As quantize_row, but weights that go get the code of 0.
template <int Bits, class Grid>
struct prune_and_quantize_row {
    block_to_quantize<Bits, Grid> block;
    block_mask mask;
    constexpr void operator()(std::size_t r) const {
        for (std::size_t i = 0; i < block.T.cols; ++i) {
            mask.reach(block, r, i);
            if (block.starts_group(i)) block.fit(r, i);
            const float kept = mask.stays(r, i) ? block.T(r, i) : 0.0f;
            block.settle_code(r, i, block.grid.template encode<Bits>(kept, block.params(r, i)));
        }
    }
};

/// 0 for the `gone` smallest scores, the earlier ones among equals, 1 for the others.                   scores [N, b]
inline matrix<std::uint8_t> largest_stay(const matrix<float>& scores, std::size_t gone) {
    const std::size_t count = scores.rows() * scores.cols();
    matrix<std::uint8_t> stays(scores.rows(), scores.cols());
    std::fill_n(stays.data(), count, std::uint8_t{1});
    if (gone == 0) return stays;
    std::vector<float> sorted(scores.data(), scores.data() + count);
    const auto last = sorted.begin() + static_cast<std::ptrdiff_t>(gone) - 1;
    std::nth_element(sorted.begin(), last, sorted.end());
    std::size_t of_equals =
        gone - static_cast<std::size_t>(std::count_if(sorted.begin(), last, [last](float x) { return x < *last; }));
    for (std::size_t i = 0; i < count; ++i) {
        const float score = scores.data()[i];
        if (score < *last || (score == *last && of_equals > 0)) stays.data()[i] = 0;
        if (score == *last && of_equals > 0) --of_equals;
    }
    return stays;
}

/// run(mask of the block), for one of the two kinds of pattern.
template <Backend B, class Run>
void with_mask(const B& backend, const column_block& block, const sparsity_pattern& pattern, const Run& run) {
    const std::size_t N = block.T.rows, b = block.T.cols;
    auto stays = backend.template make_matrix<std::uint8_t>(N, b);  // [N, b]
    if (pattern.of == 0) {
        auto scores = backend.template make_matrix<float>(N, b);  // [N, b]
        backend.for_each_row(N, cost_of_zero_row{block, scores.view()});
        matrix<float> host(N, b);
        backend.download(scores.view(), host.view());
        const double gone = pattern.share * static_cast<double>(N * b);
        const matrix<std::uint8_t> chosen = largest_stay(host, static_cast<std::size_t>(gone));
        const auto lent = backend.lend(chosen.view());
        backend.for_each_row(N, copy_row_of<std::uint8_t>{lent.view(), stays.view()});
    }
    run(block_mask{stays.view(), pattern.kept, pattern.of});
}

/// Columns per block of a pattern: a multiple of its neighbours, which lie in one block.
inline std::size_t block_of(const sparsity_pattern& pattern, std::size_t block_size, std::size_t K) {
    const std::size_t together = std::max<std::size_t>(pattern.of, 1);
    return std::min(std::max(block_size / together, std::size_t{1}) * together, K);
}

/// Throws option_error where the neighbours of an n:m pattern are not neighbours in the order of the loop.
template <Backend B, class P>
void check_order_of(const sparsity_pattern& pattern, const factored_hessian<B, P>& f) {
    check_pattern(pattern, f.in_features());
    if (pattern.of != 0 && !std::is_sorted(f.order.begin(), f.order.end()))
        throw option_error("sparsity: an n:m pattern needs the columns in their natural order, not in that of " +
                           f.order_name);
}

}  // namespace detail

/// The rule of pruning: values that stay, and zeros, go to `values`.
template <Backend B>
class prune_columns {
 public:
    /// values: [N, K] in the backend's memory, original order; order: position -> original column. All outlive the
    /// rule.
    prune_columns(const B& backend, const sparsity_pattern& pattern, const column_order& order,
                  matrix_view<float> values)
        : backend_(backend),
          pattern_(pattern),
          values_(values),
          order_(backend.lend(matrix_view<const std::size_t>(order.data(), 1, order.size()))) {}

    void operator()(const column_block& block) const {
        const auto position = order_.view().columns(block.first, block.first + block.T.cols);
        detail::with_mask(backend_, block, pattern_, [&](const detail::block_mask& mask) {
            backend_.for_each_row(block.T.rows, detail::prune_row{block, mask, values_, position});
        });
    }

 private:
    const B& backend_;
    sparsity_pattern pattern_;
    matrix_view<float> values_;
    decltype(std::declval<const B&>().lend(std::declval<matrix_view<const std::size_t>>())) order_;  // [1, K]
};

/// The rule of pruning and rounding together: prune_columns and round_to_grid in one pass.
template <int Bits, AffineGrid Grid, Backend B, FactorPath<B> P>
class prune_and_round {
 public:
    /// As round_to_grid.
    prune_and_round(const factored_hessian<B, P>& f, const sparsity_pattern& pattern, matrix_view<const float> W,
                    held_layer<B>& result, const quantize_options& options, const Grid& grid)
        : backend_(f.backend), pattern_(pattern), round_(f, W, result, options, grid) {}

    column_cuts cuts() const { return round_.cuts(); }

    void operator()(const column_block& block) const {
        const block_to_quantize<Bits, Grid> work = round_.prepare(block);
        detail::with_mask(backend_, block, pattern_, [&](const detail::block_mask& mask) {
            backend_.for_each_row(block.T.rows, detail::prune_and_quantize_row<Bits, Grid>{work, mask});
        });
    }

 private:
    const B& backend_;
    sparsity_pattern pattern_;
    round_to_grid<Bits, Grid, B, P> round_;
};

/// Prunes W [N, K] by the size of its weights alone, in blocks of `block_size` columns: the baseline for other
/// methods. W and out, [N, K], lie in the backend's memory. Throws option_error for a pattern with impossible numbers.
template <Backend B>
void prune_by_magnitude(in_backend_t, const B& backend, matrix_view<const float> W, const sparsity_pattern& pattern,
                        matrix_view<float> out, std::size_t block_size = 128) {
    check_pattern(pattern, W.cols);
    const std::size_t b = detail::block_of(pattern, block_size, W.cols);
    const column_order order = detail::identity_order(W.cols);
    const prune_columns<B> rule(backend, pattern, order, out);
    auto D = backend.template make_matrix<float>(W.rows, W.cols);  // [N, K]
    auto T = backend.template make_matrix<float>(W.rows, b);       // [N, b]
    auto U = backend.template make_matrix<float>(b, b);            // [b, b], the identity: no errors are fed back
    auto costs = backend.template make_matrix<float>(1, b);        // [1, b], all alike
    auto loss = backend.template make_matrix<double>(W.rows, 1);   // [N, 1]
    backend.for_each_row(b, detail::identity_row{U.view()});
    backend.for_each_row(1, detail::fill_row{costs.view(), 1.0f});
    for (std::size_t first = 0, n = 0; first < W.cols; first += n) {
        n = std::min(b, W.cols - first);
        const auto part = T.view().columns(0, n);
        backend.for_each_row(W.rows, detail::copy_row{W.columns(first, first + n), part});
        rule(column_block{part, D.view().columns(first, first + n), U.view().block(0, n, 0, n),
                          costs.view().columns(0, n), loss.view(), first});
    }
}

/// Prunes W [N, K] into `out` [N, K], both in the backend's memory, with the factored Hessian of its inputs; the
/// weights that stay make up for those that go. Of the options block_size is used. Time and memory as solve(), and one
/// selection among N K weights on the host where the pattern is unstructured. Where the Hessian could not be factored
/// the layer is pruned by magnitude, and report.rounded_to_nearest says so. Throws option_error for a pattern
/// with impossible numbers or one that does not fit the order, and for options out of range.
template <Backend B, FactorPath<B> P, Observer O>
solve_report prune(in_backend_t, matrix_view<const float> weights, const factored_hessian<B, P>& f,
                   matrix_view<float> out, const sparsity_pattern& pattern, const quantize_options& options,
                   O& observer) {
    detail::check_order_of(pattern, f);
    solve_report report = detail::begin_report(f, options);
    const std::size_t K = weights.cols, block = detail::block_of(pattern, options.block_size, K);
    if (f.positive_definite) {
        auto W = detail::ordered_copy(f, weights);  // [N, K], columns in their order
        const prune_columns<B> rule(f.backend, pattern, f.order, out);
        const column_cuts cuts{K, block, std::max<std::size_t>(pattern.of, 1)};
        report.loss = solve_columns(f, W.view(), cuts, rule, observer);
    }
    if (!f.positive_definite || !std::isfinite(report.loss)) {
        prune_by_magnitude(in_backend, f.backend, weights, pattern, out, block);
        report.rounded_to_nearest = true;
        report.loss = 0.0;
    }
    return report;
}

/// Prunes and quantizes W [N, K] in one pass into `result`; a weight that goes gets the code of 0. Everything else is
/// as in prune() and in solve(). Throws what they throw, and option_error for a search of codes and for groups that an
/// n:m pattern does not divide.
template <int Bits, AffineGrid Grid, Backend B, FactorPath<B> P, Observer O>
solve_report prune_and_quantize(in_backend_t, matrix_view<const float> weights, const factored_hessian<B, P>& f,
                                held_layer<B>& result, const sparsity_pattern& pattern, quantize_options options,
                                O& observer, const Grid& grid = {}) {
    detail::check_order_of(pattern, f);
    solve_report report = detail::begin_report(f, options);
    if (options.candidates != 1 || options.refine.rounds != 0)
        throw option_error("candidates, refine.rounds: a search of codes would undo the pruning; leave them out");
    if (pattern.of != 0 && f.group_features % pattern.of != 0)
        throw option_error("group_size: " + std::to_string(f.group_features) + " is no multiple of the " +
                           std::to_string(pattern.of) + " neighbours of the sparsity");
    options.block_size = detail::block_of(pattern, options.block_size, weights.cols);
    result.template made_by<Bits>(grid);
    if (f.positive_definite) {
        auto W = detail::ordered_copy(f, weights);  // [N, K], columns in their order
        if (f.static_groups) detail::fit_static_groups<Bits>(f, weights, result.groups(), grid);
        const prune_and_round<Bits, Grid, B, P> rule(f, pattern, W.view(), result, options, grid);
        report.loss = solve_columns(f, W.view(), rule.cuts(), rule, observer);
    }
    if (!f.positive_definite || !std::isfinite(report.loss)) {
        auto pruned = f.backend.template make_matrix<float>(weights.rows, weights.cols);  // [N, K]
        prune_by_magnitude(in_backend, f.backend, weights, pattern, pruned.view(), options.block_size);
        return detail::round_instead<Bits>(f, pruned.view(), result, grid, report);
    }
    return detail::finish_layer(f, result, report);
}

}  // namespace gptq
