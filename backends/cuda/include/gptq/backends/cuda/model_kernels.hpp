// The parts of a decoder block that are no products, as kernels: norms, rotation, gating, embedding, scoring.
//
// Two shapes of launches serve all of them. element_blocks gives a block some neighbouring elements of one row.
// row_blocks gives a row a whole block, or, where rows are short, a warp.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>

#include <gptq/backends/cuda/context.hpp>
#include <gptq/backends/cuda/numbers.hpp>
#include <gptq/backends/cuda/warp_sum.hpp>
#include <gptq/half.hpp>
#include <gptq/matrix_view.hpp>
#include <gptq/model/architecture.hpp>
#include <gptq/model/attention_shape.hpp>

namespace gptq::cuda {

/// Blocks that have some neighbouring elements of one row each, for kernels that treat every element by itself.
struct element_blocks {
    static constexpr std::size_t block_threads = 256;
    static constexpr std::size_t block_elements = 4 * block_threads;
    std::size_t rows, cols;

    constexpr std::size_t in_row() const { return (cols + block_elements - 1) / block_elements; }
    constexpr launch_shape launch() const { return {rows * in_row(), block_threads, 0}; }

    /// f(r, c) for the elements of this thread.
    template <class Context, class F>
    constexpr void for_each(Context& ctx, const F& f) const {
        const std::size_t row = ctx.block() / in_row(), first = ctx.block() % in_row() * block_elements;
        const std::size_t last = std::min(first + block_elements, cols);
        for (std::size_t c = first + ctx.thread(); c < last; c += block_threads) f(row, c);
    }
};

/// A block a row, or a warp where rows are short, for kernels that sum over rows.
struct row_blocks {
    static constexpr std::size_t block_threads = 256, warps = block_threads / warp_size;
    static constexpr std::size_t short_row = 512;
    std::size_t rows, cols;

    constexpr bool short_rows() const { return cols <= short_row; }
    constexpr launch_shape launch() const {
        return {short_rows() ? (rows + warps - 1) / warps : rows, block_threads, warps * sizeof(double)};
    }
    template <class Context>
    constexpr std::size_t row(Context& ctx) const {
        return short_rows() ? ctx.block() * warps + ctx.warp() : ctx.block();
    }
    /// f(c) for the elements of this thread in its row.
    template <class Context, class F>
    constexpr void for_each(Context& ctx, const F& f) const {
        const std::size_t stride = short_rows() ? std::size_t{warp_size} : std::size_t{block_threads};
        for (std::size_t c = short_rows() ? ctx.lane() : ctx.thread(); c < cols; c += stride) f(c);
    }
    /// What join(a, b), which is commutative, makes of the values of all threads of the row, in one order for all of
    /// them. All threads of the block call it, those without a row too.
    template <class Context, class T, class Join>
    constexpr T join(Context& ctx, T value, const Join& joined) const {
        for (std::size_t mask = warp_size / 2; mask > 0; mask /= 2) value = joined(value, exchange(ctx, value, mask));
        if (short_rows()) return value;
        const auto parts = ctx.template shared<T>(0, warps);
        ctx.barrier();  // those who still read what was here before
        if (ctx.lane() == 0) parts[ctx.warp()] = value;
        ctx.barrier();
        T all = parts[0];
        for (std::size_t w = 1; w < warps; ++w) all = joined(all, parts[w]);
        return all;
    }
    template <class Context, class T>
    constexpr T sum(Context& ctx, T value) const {
        return join(ctx, value, [](T a, T b) { return a + b; });
    }
};

namespace detail {

/// What a norm does to a row: y = (x - shift) * scale * weight + bias.
struct row_norm {
    const float* weight;  // [features], or null: 1
    const float* bias;    // [features], or null: 0
    bool centred;         // subtract the mean
    float eps;

    struct line {
        float shift, scale;
    };

    template <class Context, class T>
    constexpr line fit(Context& ctx, const row_blocks& blocks, bool has_row, const T* x) const {
        const auto features = static_cast<float>(blocks.cols);
        line fitted{0.0f, 0.0f};
        float sum = 0.0f, squares = 0.0f;
        if (centred) {
            if (has_row) blocks.for_each(ctx, [&](std::size_t c) { sum += widened(ctx, x[c]); });
            fitted.shift = blocks.sum(ctx, sum) / features;
        }
        if (has_row)
            blocks.for_each(ctx, [&](std::size_t c) {
                const float value = widened(ctx, x[c]) - fitted.shift;
                squares += value * value;
            });
        fitted.scale = 1.0f / std::sqrt(blocks.sum(ctx, squares) / features + eps);
        return fitted;
    }
    constexpr float at(const line& fitted, float x, std::size_t c) const {
        float y = (x - fitted.shift) * fitted.scale;
        if (weight != nullptr) y *= weight[c];
        if (bias != nullptr) y += bias[c];
        return y;
    }
};

/// The function inside the MLP.
constexpr float activated(model::mlp_activation f, float x) {
    using model::mlp_activation;
    switch (f) {
        case mlp_activation::silu: return x / (1.0f + std::exp(-x));
        case mlp_activation::relu: return x > 0.0f ? x : 0.0f;
        case mlp_activation::relu_squared: return x > 0.0f ? x * x : 0.0f;
        case mlp_activation::gelu: return 0.5f * x * (1.0f + std::erf(x * 0.70710678f));
        case mlp_activation::gelu_tanh: {
            const float u = 1.59576912f * (x + 0.044715f * x * x * x);  // (1 + tanh(u / 2)) / 2 is the sigmoid of u
            return x / (1.0f + std::exp(-u));
        }
    }
    return x;
}

}  // namespace detail

/// y = norm of each row of x, which y may be.                                                x, y [tokens, features]
template <class From, class To>
struct normalize_kernel {
    static constexpr std::size_t block_threads = row_blocks::block_threads;
    matrix_view<const From> x;
    matrix_view<To> y;
    detail::row_norm norm;

    constexpr row_blocks blocks() const { return {x.rows, x.cols}; }
    constexpr launch_shape launch() const { return blocks().launch(); }

    template <kernel_context Context>
    constexpr void operator()(Context& ctx) const {
        const std::size_t r = blocks().row(ctx);
        const bool has_row = r < x.rows;
        const From* from = has_row ? &x(r, 0) : nullptr;
        const auto fitted = norm.fit(ctx, blocks(), has_row, from);
        if (!has_row) return;
        blocks().for_each(ctx, [&](std::size_t c) {
            y(r, c) = detail::narrowed<To>(ctx, norm.at(fitted, detail::widened(ctx, from[c]), c));
        });
    }
};

/// states += norm of each row of terms.                                              terms, states [tokens, features]
template <class T>
struct add_normalized_kernel {
    static constexpr std::size_t block_threads = row_blocks::block_threads;
    matrix_view<const T> terms;
    matrix_view<float> states;
    detail::row_norm norm;

    constexpr row_blocks blocks() const { return {terms.rows, terms.cols}; }
    constexpr launch_shape launch() const { return blocks().launch(); }

    template <kernel_context Context>
    constexpr void operator()(Context& ctx) const {
        const std::size_t r = blocks().row(ctx);
        const bool has_row = r < terms.rows;
        const T* from = has_row ? &terms(r, 0) : nullptr;
        const auto fitted = norm.fit(ctx, blocks(), has_row, from);
        if (!has_row) return;
        blocks().for_each(ctx,
                          [&](std::size_t c) { states(r, c) += norm.at(fitted, detail::widened(ctx, from[c]), c); });
    }
};

/// An operation f(ctx, r, c) on every element of a matrix [rows, cols].
template <class F>
struct each_element_kernel {
    static constexpr std::size_t block_threads = element_blocks::block_threads;
    element_blocks blocks;
    F f;

    constexpr launch_shape launch() const { return blocks.launch(); }

    template <kernel_context Context>
    constexpr void operator()(Context& ctx) const {
        blocks.for_each(ctx, [&](std::size_t r, std::size_t c) { f(ctx, r, c); });
    }
};

template <class F>
constexpr each_element_kernel<F> for_each_element(std::size_t rows, std::size_t cols, const F& f) {
    return {{rows, cols}, f};
}

/// states += terms                                                                        [tokens, features]
template <class T>
struct add_element {
    matrix_view<float> states;
    matrix_view<const T> terms;
    template <class Context>
    constexpr void operator()(Context& ctx, std::size_t r, std::size_t c) const {
        states(r, c) += detail::widened(ctx, terms(r, c));
    }
};

/// states(r, :) += terms(r % terms.rows, :)
struct add_repeated_element {
    matrix_view<float> states;
    matrix_view<const float> terms;
    template <class Context>
    constexpr void operator()(Context&, std::size_t r, std::size_t c) const {
        states(r, c) += terms(r % terms.rows, c);
    }
};

/// y += bias in every row                                                     y [tokens, features]  bias [features]
template <class T>
struct add_bias_element {
    matrix_view<T> y;
    const float* bias;
    template <class Context>
    constexpr void operator()(Context& ctx, std::size_t r, std::size_t c) const {
        y(r, c) = detail::narrowed<T>(ctx, detail::widened(ctx, y(r, c)) + bias[c]);
    }
};

/// x = f(x)
template <class T>
struct activate_element {
    matrix_view<T> x;
    model::mlp_activation f;
    template <class Context>
    constexpr void operator()(Context& ctx, std::size_t r, std::size_t c) const {
        x(r, c) = detail::narrowed<T>(ctx, detail::activated(f, detail::widened(ctx, x(r, c))));
    }
};

/// x = f(x) y
template <class T>
struct gate_element {
    matrix_view<T> x;
    matrix_view<const T> y;
    model::mlp_activation f;
    template <class Context>
    constexpr void operator()(Context& ctx, std::size_t r, std::size_t c) const {
        const float gate = detail::activated(f, detail::widened(ctx, x(r, c)));
        x(r, c) = detail::narrowed<T>(ctx, gate * detail::widened(ctx, y(r, c)));
    }
};

/// x = cap tanh(x / cap)
struct cap_element {
    matrix_view<float> x;
    float cap;
    template <class Context>
    constexpr void operator()(Context&, std::size_t r, std::size_t c) const {
        x(r, c) = cap * std::tanh(x(r, c) / cap);
    }
};

/// to = from
template <class From, class To>
struct convert_element {
    matrix_view<const From> from;
    matrix_view<To> to;
    template <class Context>
    constexpr void operator()(Context& ctx, std::size_t r, std::size_t c) const {
        to(r, c) = detail::narrowed<To>(ctx, detail::widened(ctx, from(r, c)));
    }
};

/// states(t, :) = factor table(ids[t], :)                  table [vocabulary, features]  states [tokens, features]
template <class T>
struct look_up_element {
    matrix_view<const T> table;
    matrix_view<const std::int32_t> ids;  ///< [1, tokens]
    float factor;
    matrix_view<float> states;
    template <class Context>
    constexpr void operator()(Context& ctx, std::size_t r, std::size_t c) const {
        states(r, c) = factor * detail::widened(ctx, table(static_cast<std::size_t>(ids(0, r)), c));
    }
};

/// y(i, :) = x(rows[i], :)                                        x [tokens, features]  y [of the expert, features]
template <class T>
struct gather_element {
    matrix_view<const T> x;
    matrix_view<const std::int32_t> rows;  ///< [1, of the expert]
    matrix_view<T> y;
    template <class Context>
    constexpr void operator()(Context&, std::size_t r, std::size_t c) const {
        y(r, c) = x(static_cast<std::size_t>(rows(0, r)), c);
    }
};

/// states(rows[i], :) += shares[i] y(i, :), no row twice.    y [of the expert, features]  states [tokens, features]
template <class T>
struct scatter_add_element {
    matrix_view<const T> y;
    matrix_view<const std::int32_t> rows;  ///< [1, of the expert]
    matrix_view<const float> shares;       ///< likewise
    matrix_view<float> states;
    template <class Context>
    constexpr void operator()(Context& ctx, std::size_t r, std::size_t c) const {
        states(static_cast<std::size_t>(rows(0, r)), c) += shares(0, r) * detail::widened(ctx, y(r, c));
    }
};

/// Turns the pairs of each head of x by the angles of row r % cosines.rows; an element is a pair.
///                                                            x [tokens, heads head_dim]  cosines, sines [positions, n]
template <class T>
struct rotate_pair {
    matrix_view<T> x;
    matrix_view<const float> cosines, sines;
    model::rotary_heads heads;
    template <class Context>
    constexpr void operator()(Context& ctx, std::size_t r, std::size_t c) const {
        const std::size_t n = cosines.cols, i = c % n, head = c / n * heads.head_dim, position = r % cosines.rows;
        const auto pair = heads.pair(i, n);
        T &first = x(r, head + pair.first), &second = x(r, head + pair.second);
        const float a = detail::widened(ctx, first), b = detail::widened(ctx, second);
        const float cosine = cosines(position, i), sine = sines(position, i);
        first = detail::narrowed<T>(ctx, a * cosine - b * sine);
        second = detail::narrowed<T>(ctx, b * cosine + a * sine);
    }
};

/// -log softmax(logits(r, :))[targets[r]], sums of each thread in double.
struct score_kernel {
    static constexpr std::size_t block_threads = row_blocks::block_threads;
    matrix_view<const float> logits;          ///< [tokens, vocabulary]
    matrix_view<const std::int32_t> targets;  ///< [1, tokens]
    matrix_view<double> result;               ///< [tokens, 1]

    constexpr row_blocks blocks() const { return {logits.rows, logits.cols}; }
    constexpr launch_shape launch() const { return blocks().launch(); }

    template <kernel_context Context>
    constexpr void operator()(Context& ctx) const {
        const std::size_t r = blocks().row(ctx);
        const bool has_row = r < logits.rows;
        float top = -std::numeric_limits<float>::infinity();
        if (has_row) blocks().for_each(ctx, [&](std::size_t c) { top = std::fmax(top, logits(r, c)); });
        top = blocks().join(ctx, top, [](float a, float b) { return std::fmax(a, b); });
        double sum = 0.0;
        if (has_row)
            blocks().for_each(ctx, [&](std::size_t c) { sum += static_cast<double>(std::exp(logits(r, c) - top)); });
        sum = blocks().sum(ctx, sum);
        const bool writes = blocks().short_rows() ? ctx.lane() == 0 : ctx.thread() == 0;
        if (!has_row || !writes) return;
        const float target = logits(r, static_cast<std::size_t>(targets(0, r)));
        result(r, 0) = std::log(sum) + static_cast<double>(top) - static_cast<double>(target);
    }
};

}  // namespace gptq::cuda
