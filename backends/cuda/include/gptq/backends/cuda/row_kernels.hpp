// The row operations of the core as kernels: one thread a row, or, where an operation treats every column by itself,
// one thread an element, so that neighbouring threads touch neighbouring elements.
#pragma once

#include <algorithm>
#include <cstddef>
#include <utility>

#include <gptq/backends/cuda/context.hpp>
#include <gptq/factor.hpp>
#include <gptq/hessian.hpp>
#include <gptq/refine.hpp>
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

/// What permute_hessian does for input feature i, at the positions [first, last).
struct permute_feature {
    gptq::detail::permute_hessian f;
    std::size_t first, last;
    constexpr void operator()(std::size_t i) const noexcept {
        const std::size_t p = f.position(0, i);
        f.permute(i, first, last);
        if (first <= p && p < last) f.damp_diagonal(i);
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
    return gptq::detail::gather_row{f.W, at(f.to, c), at(f.order, c), at(f.dead, c)};
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

constexpr std::size_t columns_of(const gptq::detail::codes_row& f) { return f.C.cols; }
constexpr auto on_column(const gptq::detail::codes_row& f, std::size_t c) {
    return gptq::detail::codes_row{f.codes, f.order, at(f.positions, c), at(f.C, c)};
}

constexpr std::size_t columns_of(const reverse_row_pair& f) { return f.last - f.first; }
constexpr auto on_column(const reverse_row_pair& f, std::size_t c) {
    return reverse_row_pair{f.H, f.first + c, f.first + c + 1};
}

constexpr std::size_t columns_of(const permute_feature& f) { return f.last - f.first; }
constexpr auto on_column(const permute_feature& f, std::size_t c) {
    return permute_feature{f.f, f.first + c, f.first + c + 1};
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
        for (std::size_t i = first + ctx.thread(); i < last; i += block_threads)
            columns::on_column(f, i % cols)(i / cols);
    }
};

}  // namespace gptq::cuda
