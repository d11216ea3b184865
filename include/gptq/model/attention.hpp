// Causal attention of consecutive tokens over themselves and what came before them.
#pragma once

#include <algorithm>
#include <cstddef>
#include <span>

#include <gptq/backends/cpu/blas.hpp>
#include <gptq/kernels/threads.hpp>
#include <gptq/matrix_view.hpp>
#include <gptq/model/buffers.hpp>
#include <gptq/model/dense.hpp>
#include <gptq/model/elementwise.hpp>
#include <gptq/model/model_config.hpp>

namespace gptq::model {

namespace detail {

/// Queries whose scores are held at a time: enough for an efficient product, few enough to stay in the cache.
inline constexpr std::size_t attention_tile = 64;

/// Rows of scores to weights. Row r belongs to position first_query + r, column c to position first_key + c; a token
/// sees `span` positions up to its own.
inline void mask_and_normalize(matrix_view<float> scores, std::size_t first_query, std::size_t first_key,
                               std::size_t span) {
    for (std::size_t r = 0; r < scores.rows; ++r) {
        const std::span<float> row = scores.row(r);
        const std::size_t end = first_query + r + 1;
        const std::size_t begin = end > span ? end - span : 0;
        const std::size_t from = begin > first_key ? begin - first_key : 0;
        const std::size_t to = end - first_key;
        std::fill(row.begin(), row.begin() + static_cast<std::ptrdiff_t>(from), 0.0f);
        softmax(row.subspan(from, to - from));
        std::fill(row.begin() + static_cast<std::ptrdiff_t>(to), row.end(), 0.0f);
    }
}

/// sum = weights · rows, four rows at a time so that sums are loaded and stored less often.    rows [keys, head_dim]
inline void weigh_rows(std::span<const float> weights, matrix_view<const float> rows, std::span<float> sum) {
    std::fill(sum.begin(), sum.end(), 0.0f);
    std::size_t i = 0;
    for (; i + 4 <= rows.rows; i += 4) {
        const float *a = &rows(i, 0), *b = &rows(i + 1, 0), *c = &rows(i + 2, 0), *d = &rows(i + 3, 0);
        const float wa = weights[i], wb = weights[i + 1], wc = weights[i + 2], wd = weights[i + 3];
        for (std::size_t k = 0; k < sum.size(); ++k) sum[k] += (wa * a[k] + wb * b[k]) + (wc * c[k] + wd * d[k]);
    }
    for (; i < rows.rows; ++i)
        for (std::size_t k = 0; k < sum.size(); ++k) sum[k] += weights[i] * rows(i, k);
}

/// attend for one query: too little for BLAS.
inline void attend_one(const model_config& c, std::size_t window, matrix_view<const float> q,
                       matrix_view<const float> k, matrix_view<const float> v, scratch_matrix& memory,
                       matrix_view<float> out) {
    const std::size_t keys = window != 0 ? std::min(window, k.rows) : k.rows, first_key = k.rows - keys;
    const auto scores = memory.shaped(c.heads, keys);
    constexpr std::size_t worth_starting = std::size_t{1} << 18;
    const std::size_t threads = c.heads * keys * c.head_dim < worth_starting ? 1 : kernels::default_threads();
    kernels::in_parallel(c.heads, threads, [&](std::size_t first_head, std::size_t last_head) {
        for (std::size_t head = first_head; head < last_head; ++head) {
            const std::size_t column = head * c.head_dim, kv_column = head / (c.heads / c.kv_heads) * c.head_dim;
            const std::span<const float> query = q.row(0).subspan(column, c.head_dim);
            const std::span<float> weights = scores.row(head), sum = out.row(0).subspan(column, c.head_dim);
            for (std::size_t i = 0; i < keys; ++i)
                weights[i] = c.attention_scale * dot(query, k.row(first_key + i).subspan(kv_column, c.head_dim));
            softmax(weights);
            weigh_rows(weights, v.block(first_key, keys, kv_column, c.head_dim), sum);
        }
    });
}

}  // namespace detail

/// out = softmax(scale · q kᵀ, causal) v for every head; heads / kv_heads query heads share one key and value head.
/// The rows of q belong to the last positions of k and v. A token sees `window` positions up to and including its own,
/// or all of them if `window` is 0. Needs memory for 64 rows of scores, or one for each head, whatever the number of
/// tokens.
/// q, out [tokens, heads * head_dim]   k, v [past + tokens, kv_heads * head_dim]
inline void attend(const model_config& c, std::size_t window, matrix_view<const float> q, matrix_view<const float> k,
                   matrix_view<const float> v, scratch_matrix& memory, matrix_view<float> out) {
    if (q.rows == 1) return detail::attend_one(c, window, q, k, v, memory, out);
    const std::size_t past = k.rows - q.rows;
    const std::size_t span = window != 0 ? window : k.rows;
    for (std::size_t head = 0; head < c.heads; ++head) {
        const std::size_t column = head * c.head_dim;
        const std::size_t kv_column = head / (c.heads / c.kv_heads) * c.head_dim;
        for (std::size_t first = 0; first < q.rows; first += detail::attention_tile) {
            const std::size_t count = std::min(detail::attention_tile, q.rows - first);
            const std::size_t position = past + first;
            const std::size_t first_key = position + 1 > span ? position + 1 - span : 0;
            const std::size_t keys = position + count - first_key;
            const auto scores = memory.shaped(count, keys);
            blas::gemm_nt(q.block(first, count, column, c.head_dim), k.block(first_key, keys, kv_column, c.head_dim),
                          scores, c.attention_scale, 0.0f);
            detail::mask_and_normalize(scores, position, first_key, span);
            blas::gemm(scores, v.block(first_key, keys, kv_column, c.head_dim),
                       out.block(first, count, column, c.head_dim), 1.0f, 0.0f);
        }
    }
}

}  // namespace gptq::model
