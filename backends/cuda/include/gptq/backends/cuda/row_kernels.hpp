// The row operations of the core as kernels: one thread a row, or, where an operation treats every column by itself,
// one thread an element, so that neighbouring threads touch neighbouring elements; sums over rows have a warp a row.
#pragma once

#include <algorithm>
#include <concepts>
#include <cstddef>
#include <utility>

#include <gptq/backends/cuda/context.hpp>
#include <gptq/backends/cuda/warp_sum.hpp>
#include <gptq/drift.hpp>
#include <gptq/factor.hpp>
#include <gptq/hessian.hpp>
#include <gptq/layer_error.hpp>
#include <gptq/matrix_view.hpp>
#include <gptq/refine.hpp>
#include <gptq/round_to_nearest.hpp>
#include <gptq/solver_state.hpp>

namespace gptq::cuda {

/// f(r) for every r below `rows`, by a thread each.
template <class F>
struct row_kernel {
    static constexpr std::size_t block_threads = 32;  // the rows of a layer are few: small blocks reach all processors
    std::size_t rows;
    F f;

    constexpr launch_shape launch() const { return {(rows + block_threads - 1) / block_threads, block_threads, 0}; }

    template <kernel_context Context>
    constexpr void operator()(Context& ctx) const {
        const std::size_t r = ctx.block() * block_threads + ctx.thread();
        if (r < rows) f(r);
    }
};

/// Swaps H(i, j) and H(n-1-i, n-1-j), for the rows i below (n + 1) / 2 and the columns [first, last).      H [n, n]
struct reverse_row_pair {
    matrix_view<float> H;
    std::size_t first, last;
    constexpr void operator()(std::size_t i) const noexcept {
        const std::size_t end = H.rows - 1;
        for (std::size_t j = first; j < last; ++j)
            if (2 * i < end || 2 * j < end) std::swap(H(i, j), H(end - i, end - j));
    }
};

/// Input feature i of a permutation, at the positions [first, last).
struct permute_feature {
    hessian_permutation permutation;
    std::size_t first, last;
    constexpr void operator()(std::size_t i) const noexcept { permutation.place(i, first, last); }
};

/// What identity_row does, in the columns [first, last).
struct identity_part {
    gptq::detail::identity_row f;
    std::size_t first, last;
    constexpr void operator()(std::size_t r) const noexcept {
        for (std::size_t c = first; c < last; ++c) f.to(r, c) = r == c ? 1.0f : 0.0f;
    }
};

/// What anti_transpose_row does, in the columns [first, last).
struct anti_transpose_part {
    gptq::detail::anti_transpose_row f;
    std::size_t first, last;
    constexpr void operator()(std::size_t r) const noexcept {
        const std::size_t end = f.to.cols - 1;
        for (std::size_t c = first; c < last; ++c) f.to(r, c) = f.from(end - c, end - r);
    }
};

/// What reverse_row does: swaps M(r, c) and M(r, K-1-c), for the columns c in [first, last), below K/2.        M [N, K]
struct reverse_part {
    gptq::detail::reverse_row f;
    std::size_t first, last;
    constexpr void operator()(std::size_t r) const noexcept {
        for (std::size_t c = first; c < last; ++c) std::swap(f.M(r, c), f.M(r, f.M.cols - 1 - c));
    }
};

/// Zeroes what lies below the diagonal of A, in the columns [first, last).                                     A [K, K]
struct zero_lower_part {
    matrix_view<float> A;
    std::size_t first, last;
    constexpr void operator()(std::size_t r) const noexcept {
        for (std::size_t c = first; c < last; ++c)
            if (c < r) A(r, c) = 0.0f;
    }
};

// ---------------------------------------------------------------------------------------------------------------------
// columns_of(f) is how many columns a row operation goes over, on_column(f, c) the same operation for column c alone.
// Operations that have both run with a thread for each element.
// ---------------------------------------------------------------------------------------------------------------------
namespace columns {

template <class View>
constexpr View at(View m, std::size_t c) {
    return m.columns(c, c + 1);
}

template <class T>
constexpr std::size_t columns_of(const gptq::detail::copy_row_of<T>& f) {
    return f.to.cols;
}
template <class T>
constexpr auto on_column(const gptq::detail::copy_row_of<T>& f, std::size_t c) {
    return gptq::detail::copy_row_of<T>{at(f.from, c), at(f.to, c)};
}

constexpr std::size_t columns_of(const gptq::detail::add_row& f) { return f.to.cols; }
constexpr auto on_column(const gptq::detail::add_row& f, std::size_t c) {
    return gptq::detail::add_row{at(f.from, c), at(f.to, c)};
}

constexpr std::size_t columns_of(const gptq::detail::fill_row& f) { return f.to.cols; }
constexpr auto on_column(const gptq::detail::fill_row& f, std::size_t c) {
    return gptq::detail::fill_row{at(f.to, c), f.value};
}

constexpr std::size_t columns_of(const gptq::detail::mix_row& f) { return f.a.cols; }
constexpr auto on_column(const gptq::detail::mix_row& f, std::size_t c) {
    return gptq::detail::mix_row{at(f.a, c), at(f.b, c), f.share_a, f.share_b};
}

constexpr std::size_t columns_of(const gptq::detail::gather_row& f) { return f.to.cols; }
constexpr auto on_column(const gptq::detail::gather_row& f, std::size_t c) {
    return gptq::detail::gather_row{f.W, at(f.to, c), at(f.order, c)};
}

template <bool Inverted>
constexpr std::size_t columns_of(const gptq::detail::pivot_costs<Inverted>& f) {
    return f.costs.cols;
}
template <bool Inverted>
constexpr auto on_column(const gptq::detail::pivot_costs<Inverted>& f, std::size_t c) {
    return gptq::detail::pivot_costs<Inverted>{f.F.block(c, 1, c, 1), at(f.costs, c)};
}

template <int Bits, class Grid>
constexpr std::size_t columns_of(const gptq::detail::difference_row<Bits, Grid>& f) {
    return f.D.cols;
}
template <int Bits, class Grid>
constexpr auto on_column(const gptq::detail::difference_row<Bits, Grid>& f, std::size_t c) {
    return gptq::detail::difference_row<Bits, Grid>{at(f.D, c),     f.codes,           f.groups,
                                                    at(f.order, c), at(f.group_at, c), f.grid};
}

constexpr std::size_t columns_of(const gptq::detail::levels_row& f) { return f.C.cols; }
constexpr auto on_column(const gptq::detail::levels_row& f, std::size_t c) {
    return gptq::detail::levels_row{f.levels, f.codes, f.order, at(f.positions, c), at(f.C, c)};
}

template <int Bits, class Grid>
constexpr std::size_t columns_of(const gptq::detail::round_row<Bits, Grid>& f) {
    return f.codes.cols;
}
template <int Bits, class Grid>
constexpr auto on_column(const gptq::detail::round_row<Bits, Grid>& f, std::size_t c) {
    const std::size_t g = c / f.group_features;
    return gptq::detail::round_row<Bits, Grid>{
        at(f.W, c), {at(f.groups.scales, g), at(f.groups.zeros, g)}, at(f.codes, c), 1, f.grid};
}

constexpr std::size_t columns_of(const gptq::detail::scatter_codes& f) { return f.codes.cols; }
constexpr auto on_column(const gptq::detail::scatter_codes& f, std::size_t c) {
    return gptq::detail::scatter_codes{at(f.codes, c), f.to, at(f.order, c)};
}

constexpr std::size_t columns_of(const gptq::detail::half_row& f) { return f.M.cols; }
constexpr auto on_column(const gptq::detail::half_row& f, std::size_t c) {
    return gptq::detail::half_row{f.H, at(f.M, c), f.first + c};
}

template <class T>
constexpr std::size_t columns_of(const gptq::detail::transposed_difference<T>& f) {
    return f.to.cols;
}
template <class T>
constexpr auto on_column(const gptq::detail::transposed_difference<T>& f, std::size_t t) {
    return gptq::detail::transposed_difference<T>{f.wanted.block(t, 1, 0, f.wanted.cols),
                                                  f.actual.block(t, 1, 0, f.actual.cols), at(f.to, t)};
}

constexpr std::size_t columns_of(const gptq::detail::dequantize_row& f) { return f.to.cols; }
constexpr auto on_column(const gptq::detail::dequantize_row& f, std::size_t c) {
    return gptq::detail::dequantize_row{at(f.codes, c), f.groups, at(f.g_idx, c), f.levels, at(f.to, c)};
}

constexpr std::size_t columns_of(const gptq::detail::permute_columns& f) { return f.order.cols; }
constexpr auto on_column(const gptq::detail::permute_columns& f, std::size_t c) {
    if (f.back) return gptq::detail::permute_columns{at(f.from, c), f.to, at(f.order, c), true};
    return gptq::detail::permute_columns{f.from, at(f.to, c), at(f.order, c), false};
}

constexpr std::size_t columns_of(const gptq::detail::gather_rows& f) { return f.S.cols; }
constexpr auto on_column(const gptq::detail::gather_rows& f, std::size_t j) {
    return gptq::detail::gather_rows{at(f.A, f.A.cols - f.S.cols + j), f.positions, at(f.S, j),
                                     f.St.block(j, 1, 0, f.St.cols)};
}

/// A row operation that says which columns it goes over: [first, last).
template <class F>
concept PartOfRow = requires(const F& f) {
    { f.first } -> std::same_as<const std::size_t&>;
    { f.last } -> std::same_as<const std::size_t&>;
};
template <PartOfRow F>
constexpr std::size_t columns_of(const F& f) {
    return f.last - f.first;
}
template <PartOfRow F>
constexpr F on_column(F f, std::size_t c) {
    f.first += c;
    f.last = f.first + 1;
    return f;
}

template <class T>
constexpr std::size_t columns_of(const gptq::detail::widen_row<T>& f) {
    return f.to.cols;
}
template <class T>
constexpr auto on_column(const gptq::detail::widen_row<T>& f, std::size_t c) {
    return gptq::detail::widen_row<T>{at(f.from, c), at(f.to, c)};
}

}  // namespace columns

/// Whether a row operation can be taken apart into columns.
template <class F>
concept ColumnwiseOperation = requires(const F& f, std::size_t c) {
    { columns::columns_of(f) } -> std::same_as<std::size_t>;
    { columns::on_column(f, c) } -> std::same_as<F>;
};

/// f(r) for every r below `rows`, by a thread for every few elements.
template <ColumnwiseOperation F>
struct element_kernel {
    static constexpr std::size_t block_threads = 128;
    static constexpr std::size_t block_elements = 8 * block_threads;
    std::size_t rows;
    F f;

    constexpr std::size_t elements() const { return rows * columns::columns_of(f); }
    constexpr launch_shape launch() const {
        return {(elements() + block_elements - 1) / block_elements, block_threads, 0};
    }

    template <kernel_context Context>
    constexpr void operator()(Context& ctx) const {
        const std::size_t cols = columns::columns_of(f), first = ctx.block() * block_elements;
        const std::size_t last = std::min(first + block_elements, elements());
        std::size_t i = first + ctx.thread();
        if (i >= last) return;
        // Divisions of 64 bits take longer than most operations: each thread does them for its first element only.
        const std::size_t rows_on = block_threads / cols, columns_on = block_threads % cols;
        for (std::size_t r = i / cols, c = i % cols; i < last; i += block_threads) {
            columns::on_column(f, c)(r);
            r += rows_on;
            c += columns_on;
            if (c >= cols) {
                c -= cols;
                ++r;
            }
        }
    }
};

/// Runs dot_row for the rows [0, rows), a warp a row.
struct dot_kernel {
    static constexpr std::size_t warps = 4;
    static constexpr std::size_t block_threads = warps * warp_size;
    std::size_t rows;
    gptq::detail::dot_row f;

    constexpr launch_shape launch() const { return {(rows + warps - 1) / warps, block_threads, 0}; }

    template <kernel_context Context>
    constexpr void operator()(Context& ctx) const {
        const std::size_t r = ctx.block() * warps + ctx.warp();
        if (r >= rows) return;
        double sum = 0.0;
        for (std::size_t c = ctx.lane(); c < f.a.cols; c += warp_size) sum += double{f.a(r, c)} * double{f.b(r, c)};
        sum = warp_sum(ctx, sum);
        if (ctx.lane() == 0) f.out(r, 0) = sum;
    }
};

}  // namespace gptq::cuda
