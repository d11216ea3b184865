// The bodies of <gptq/model/attention.hpp>.
#pragma once

#include <algorithm>
#include <cstddef>
#include <span>

#include <gptq/compiled.hpp>
#include <gptq/kernels/dispatch.hpp>
#include <gptq/kernels/rows.hpp>
#include <gptq/kernels/threads.hpp>
#include <gptq/kernels/weigh.hpp>
#include <gptq/matrix_view.hpp>
#include <gptq/model/attention.hpp>
#include <gptq/model/backend.hpp>
#include <gptq/model/buffers.hpp>
#include <gptq/model/dense.hpp>
#include <gptq/model/elementwise.hpp>

namespace gptq::model {
namespace detail {

/// sum = weights · rows, for one row of weights or kernels::weigh_together.
///                                                                    weights [r, count]  rows [count, n]  sum [r, n]
inline void weigh_rows(const kernels::weigh_kernels& kernel, matrix_view<const float> weights,
                       matrix_view<const float> rows, matrix_view<float> sum) {
    const std::size_t whole = sum.cols - sum.cols % kernels::weigh_lanes;
    const auto weigh = sum.rows == 1 ? kernel.one : kernel.together;
    weigh({weights.data, weights.ld, rows.data, rows.ld, sum.data, sum.ld, rows.rows, whole});
    for (std::size_t r = 0; r < sum.rows; ++r)
        for (std::size_t k = whole; k < sum.cols; ++k) {
            sum(r, k) = 0.0f;
            for (std::size_t i = 0; i < rows.rows; ++i) sum(r, k) += weights(r, i) * rows(i, k);
        }
}

/// Many queries read each key: with keys side by side, a few of them at a time are one vector instruction. One query
/// alone would not pay for turning them.
inline constexpr std::size_t worth_turning = 8;

/// As many keys, and those that a kernel takes with them.
constexpr std::size_t whole_lanes(std::size_t keys) {
    return (keys + kernels::weigh_lanes - 1) / kernels::weigh_lanes * kernels::weigh_lanes;
}

/// Features [first, last) of k as rows of kt, and zeros beyond.     kt [kv_heads * head_dim, at least keys]
inline void turn_keys(matrix_view<const float> k, std::size_t first, std::size_t last, matrix_view<float> kt) {
    for (std::size_t i = 0; i < k.rows; ++i)
        for (std::size_t feature = first; feature < last; ++feature) kt(feature, i) = k(i, feature);
    for (std::size_t feature = first; feature < last; ++feature)
        std::fill(kt.row(feature).begin() + static_cast<std::ptrdiff_t>(k.rows), kt.row(feature).end(), 0.0f);
}

/// The attention of all queries in one head.
struct attend_head {
    attention_shape shape;
    matrix_view<const float> q;   // [tokens, heads * head_dim], of the last positions
    matrix_view<const float> k;   // [past + tokens, kv_heads * head_dim]
    matrix_view<const float> kt;  // its transpose with whole_lanes beyond every position, or empty
    matrix_view<const float> v;   // as k
    matrix_view<float> scores;    // [heads * weigh_together, as kt] of each thread's heads
    matrix_view<float> out;       // as q
    kernels::weigh_kernels kernel;

    void operator()(std::size_t head) const {
        std::size_t r = 0;
        if (kt.rows != 0)
            for (; r + together <= q.rows; r += together) attend(head, r, together);
        for (; r < q.rows; ++r) attend(head, r, 1);
    }

 private:
    static constexpr std::size_t together = kernels::weigh_together;

    /// Queries r to r + count - 1, over all positions that any of them sees.
    void attend(std::size_t head, std::size_t r, std::size_t count) const {
        const std::size_t dim = shape.head_dim, column = head * dim, kv = head / (shape.heads / shape.kv_heads) * dim;
        const std::size_t begin = shape.seen_by(r).first, seen = shape.seen_by(r + count - 1).second - begin;
        const auto room = scores.block(head * together, count, 0, scores.cols);
        const auto weights = room.columns(0, seen);
        const auto queries = q.block(r, count, column, dim);
        if (kt.rows != 0)
            weigh_rows(kernel, queries, kt.block(kv, dim, begin, whole_lanes(seen)),
                       room.columns(0, whole_lanes(seen)));
        else
            take_dots(queries.row(0), k.block(begin, seen, kv, dim), weights.row(0));
        for (std::size_t i = 0; i < count; ++i) {
            const auto [first, last] = shape.seen_by(r + i);
            for (float& w : weights.row(i)) w *= shape.scale;
            if (shape.cap != 0.0f) cap_row(shape.cap, weights.row(i));
            softmax_within(weights.row(i), first - begin, last - begin);
        }
        weigh_rows(kernel, weights, v.block(begin, seen, kv, dim), out.block(r, count, column, dim));
    }

    static void take_dots(std::span<const float> query, matrix_view<const float> keys, std::span<float> dots) {
        constexpr std::size_t ahead = kernels::rows_ahead, line = 64 / sizeof(float);
        for (std::size_t i = 0; i < keys.rows; ++i) {
            if (i + ahead < keys.rows)
                for (std::size_t c = 0; c < keys.cols; c += line) __builtin_prefetch(&keys(i + ahead, c));
            dots[i] = dot(query, keys.row(i));
        }
    }
};

}  // namespace detail
}  // namespace gptq::model

namespace gptq::model {

GPTQ_INLINE void attend(const attention_shape& c, matrix_view<const float> q, matrix_view<const float> k,
                        matrix_view<const float> v, scratch_matrix& memory, matrix_view<float> out) {
    constexpr std::size_t worth_starting = std::size_t{1} << 13;
    const std::size_t threads =
        q.rows * c.heads * k.rows * c.head_dim < worth_starting ? 1 : kernels::default_threads();
    const std::size_t turned = q.rows >= detail::worth_turning ? k.cols : 0;
    const std::size_t rows = c.heads * kernels::weigh_together;
    const matrix_view<float> all = memory.shaped(rows + turned, detail::whole_lanes(k.rows) + kernels::weigh_lanes);
    const auto scores = all.block(0, rows, 0, all.cols), kt = all.block(rows, turned, 0, all.cols);
    if (turned != 0)
        kernels::in_parallel(c.kv_heads, threads, [&](std::size_t first, std::size_t last) {
            detail::turn_keys(k, first * c.head_dim, last * c.head_dim, kt);
        });
    const detail::attend_head heads{c, q, k, kt, v, scores, out, kernels::find_weigh_kernels(best_isa())};
    kernels::in_pieces(c.heads, threads,
                       [&](std::size_t first, std::size_t last) { kernels::run_rows(best_isa(), heads, first, last); });
}

}  // namespace gptq::model
