// Causal attention of consecutive tokens over themselves and what came before them.
#pragma once

#include <algorithm>
#include <cstddef>
#include <span>
#include <utility>

#include <gptq/kernels/rows.hpp>
#include <gptq/kernels/threads.hpp>
#include <gptq/matrix_view.hpp>
#include <gptq/model/buffers.hpp>
#include <gptq/model/dense.hpp>
#include <gptq/model/elementwise.hpp>
#include <gptq/model/model_config.hpp>

namespace gptq::model {

namespace detail {

/// Sums of products side by side: as many as compilers keep in a register.
struct lane_sums {
    static constexpr std::size_t count = 16;
    float of[count] = {};

    void add(float weight, const float* x) {
        for (std::size_t i = 0; i < count; ++i) of[i] += weight * x[i];
    }
    void store(float* to) const {
        for (std::size_t i = 0; i < count; ++i) to[i] = of[i];
    }
};

/// Keys and values of earlier tokens have left the caches since they were last used, and a head's part of each row is too
/// short for processors to see what comes next.
inline constexpr std::size_t rows_ahead = 16;
inline void ask_for(matrix_view<const float> m, std::size_t row, std::size_t first, std::size_t count) {
    if (row >= m.rows) return;
    constexpr std::size_t line = 64 / sizeof(float);
    for (std::size_t k = 0; k < count; k += line) __builtin_prefetch(&m(row, first + k));
}

/// Elements [first, first + n) of weights · rows for a multiple n of lane_sums::count; returns what comes after them.
template <std::size_t... Part>
inline std::size_t weigh_columns(std::index_sequence<Part...>, std::span<const float> weights,
                                 matrix_view<const float> rows, std::size_t first, std::size_t last, float* sum) {
    constexpr std::size_t width = sizeof...(Part) * lane_sums::count;
    for (; first + width <= last; first += width) {
        lane_sums sums[sizeof...(Part)];
        for (std::size_t i = 0; i < rows.rows; ++i) {
            ask_for(rows, i + rows_ahead, first, width);
            (sums[Part].add(weights[i], &rows(i, first) + Part * lane_sums::count), ...);
        }
        (sums[Part].store(sum + first + Part * lane_sums::count), ...);
    }
    return first;
}

/// sum = weights · rows.                                                                    rows [count, n]  sum [n]
inline void weigh_rows(std::span<const float> weights, matrix_view<const float> rows, std::span<float> sum) {
    const std::size_t n = rows.rows != 0 ? sum.size() : 0;
    std::size_t k = weigh_columns(std::make_index_sequence<4>(), weights, rows, 0, n, sum.data());
    k = weigh_columns(std::make_index_sequence<1>(), weights, rows, k, n, sum.data());
    for (; k < sum.size(); ++k) {
        sum[k] = 0.0f;
        for (std::size_t i = 0; i < rows.rows; ++i) sum[k] += weights[i] * rows(i, k);
    }
}

/// Many queries read each key: with keys side by side, a few of them at a time are one vector instruction. One query
/// alone would not pay for turning them.
inline constexpr std::size_t worth_turning = 8;

/// Features [first, last) of k as rows of kt.                                kt [kv_heads * head_dim, keys]
inline void turn_keys(matrix_view<const float> k, std::size_t first, std::size_t last, matrix_view<float> kt) {
    for (std::size_t i = 0; i < k.rows; ++i)
        for (std::size_t feature = first; feature < last; ++feature) kt(feature, i) = k(i, feature);
}

/// The attention of all queries in one head.
struct attend_head {
    const model_config& config;
    std::size_t span;             // positions that a token sees at most
    matrix_view<const float> q;   // [tokens, heads * head_dim], of the last positions
    matrix_view<const float> k;   // [past + tokens, kv_heads * head_dim]
    matrix_view<const float> kt;  // its transpose, or empty
    matrix_view<const float> v;   // as k
    matrix_view<float> scores;    // [heads, past + tokens] of each thread's heads
    matrix_view<float> out;       // as q

    void operator()(std::size_t head) const {
        for (std::size_t r = 0; r < q.rows; ++r) attend(head, r);
    }

 private:
    void attend(std::size_t head, std::size_t r) const {
        const std::size_t dim = config.head_dim, column = head * dim,
                          kv = head / (config.heads / config.kv_heads) * dim;
        const std::size_t end = k.rows - q.rows + r + 1, begin = end > span ? end - span : 0;
        const std::span<const float> query = q.row(r).subspan(column, dim);
        const std::span<float> weights = scores.row(head).subspan(0, end - begin);
        if (kt.rows != 0)
            weigh_rows(query, kt.block(kv, dim, begin, weights.size()), weights);
        else
            for (std::size_t i = 0; i < weights.size(); ++i) {
                ask_for(k, begin + i + rows_ahead, kv, dim);
                weights[i] = dot(query, k.row(begin + i).subspan(kv, dim));
            }
        for (float& w : weights) w *= config.attention_scale;
        softmax(weights);
        weigh_rows(weights, v.block(begin, weights.size(), kv, dim), out.row(r).subspan(column, dim));
    }
};

}  // namespace detail

/// out = softmax(scale · q kᵀ, causal) v for every head; heads / kv_heads query heads share one key and value head.
/// The rows of q belong to the last positions of k and v. A token sees `window` positions up to and including its own,
/// or all of them if `window` is 0. Needs memory for one row of scores a head, and for another k if there are many rows.
/// q, out [tokens, heads * head_dim]   k, v [past + tokens, kv_heads * head_dim]
inline void attend(const model_config& c, std::size_t window, matrix_view<const float> q, matrix_view<const float> k,
                   matrix_view<const float> v, scratch_matrix& memory, matrix_view<float> out) {
    constexpr std::size_t worth_starting = std::size_t{1} << 13;
    const std::size_t threads =
        q.rows * c.heads * k.rows * c.head_dim < worth_starting ? 1 : kernels::default_threads();
    const std::size_t turned = q.rows >= detail::worth_turning ? k.cols : 0;
    const matrix_view<float> all = memory.shaped(c.heads + turned, k.rows);
    const auto scores = all.block(0, c.heads, 0, k.rows), kt = all.block(c.heads, turned, 0, k.rows);
    if (turned != 0)
        kernels::in_parallel(c.kv_heads, threads, [&](std::size_t first, std::size_t last) {
            detail::turn_keys(k, first * c.head_dim, last * c.head_dim, kt);
        });
    const detail::attend_head heads{c, window != 0 ? window : k.rows, q, k, kt, v, scores, out};
    kernels::in_pieces(c.heads, threads,
                       [&](std::size_t first, std::size_t last) { kernels::run_rows(best_isa(), heads, first, last); });
}

}  // namespace gptq::model
