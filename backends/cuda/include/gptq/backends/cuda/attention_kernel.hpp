// Causal attention of many queries: softmax(scale q k') v of every head, without a matrix of scores in memory.
//
// A block has a tile of queries of one head and walks over the keys that any of them sees, a tile at a time, while the
// next tile is copied. A warp has 16 queries. Its scores and sums stay in registers; with every tile the sums are
// scaled to the highest score so far, so that no power overflows. Probabilities are rounded to T for the product with
// the values, as inputs of tensor cores are. Every sum has one order: the same call gives the same bits.
#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <numbers>

#include <gptq/backends/cuda/context.hpp>
#include <gptq/backends/cuda/decode_kernel.hpp>
#include <gptq/backends/cuda/fragment_order.hpp>
#include <gptq/backends/cuda/numbers.hpp>
#include <gptq/half.hpp>
#include <gptq/matrix_view.hpp>
#include <gptq/model/attention_shape.hpp>

namespace gptq::cuda {

using model::attention_shape;

namespace detail {

/// Positions [first, last) of a window.
struct key_range {
    std::uint32_t first, last;
};

/// A window of so many keys, the last of which belong to its queries. 32 bits: indices are what registers are spent on.
struct window_view {
    std::uint32_t keys;
    std::uint32_t past;  // keys before the first query
    std::uint32_t span;  // never 0

    constexpr window_view(const attention_shape& shape, std::size_t key_count)
        : keys(static_cast<std::uint32_t>(key_count)),
          past(static_cast<std::uint32_t>(key_count - shape.queries)),
          span(static_cast<std::uint32_t>(shape.span == 0 ? key_count : std::min(shape.span, key_count))) {}

    /// What query number `query` sees.
    constexpr key_range seen_by(std::uint32_t query) const {
        const std::uint32_t last = past + query + 1;
        return {last > span ? last - span : 0, last};
    }
    constexpr bool sees(std::uint32_t query, std::uint32_t key) const {
        const key_range seen = seen_by(query);
        return seen.first <= key && key < seen.last;
    }
};

/// The keys of a window, which a captured graph keeps in memory because they grow.
constexpr window_view window_of(const attention_shape& shape, const std::uint32_t* keys_in_memory) {
    return {shape, keys_in_memory == nullptr ? shape.keys : *keys_in_memory};
}

/// Scores are powers of 2 rather than of e, which are an instruction each.
constexpr float score_scale(const attention_shape& shape) { return shape.scale * std::numbers::log2e_v<float>; }

constexpr float no_score() { return -std::numeric_limits<float>::infinity(); }

/// Two elements that are read and written as a word.
template <tensor_element T>
struct alignas(4) element_pair {
    std::array<T, 2> values;
};

/// The attention of one warp: 16 queries, to which keys and values are added, so many at a time.
///
/// Lane 4 g + t has a part of the queries g and g + 8, which the arrays of two are of.
template <tensor_element T, std::size_t HeadDim, std::size_t Keys>
class warp_attention {
    static_assert(HeadDim % 16 == 0 && Keys % 16 == 0);

 public:
    static constexpr std::size_t rows = 16;
    /// Elements between rows of keys and values in shared memory: 8 rows of a matrix lie in different banks.
    static constexpr std::uint32_t stride = HeadDim + 8;

    using two_floats = std::array<float, 2>;
    using sums = std::array<accumulators, HeadDim / 8>;  // of fragments of 16 x 8

    /// Rows of head_dim elements at multiples of 4 bytes; nullptr gives zeros, as do elements beyond head_dim.
    template <class Context>
    constexpr void load_queries(Context& ctx, const std::array<const T*, 2>& from, std::uint32_t head_dim) {
        const std::uint32_t t = static_cast<std::uint32_t>(ctx.lane()) % 4;
        for (std::uint32_t s = 0; s < HeadDim / 16; ++s)
            for (std::uint32_t i = 0; i < 4; ++i) {
                const std::uint32_t column = 16 * s + i / 2 * 8 + 2 * t;
                const T* const row = from[i % 2];
                queries_[s][i] = row != nullptr && column < head_dim ? word_at(row + column) : 0;
            }
    }

    /// Adds Keys keys and values in shared memory. The scores of keys that a query does not see are hidden, unless
    /// all_seen: sees(half, k) says whether query g + 8 half sees key k of these.                        All lanes.
    template <class Context, class Shared, class Sees>
    constexpr void add(Context& ctx, const Shared& keys, const Shared& values, float scale, bool all_seen,
                       const Sees& sees) {
        scores s = multiply_keys(ctx, keys);
        if (!all_seen) hide(ctx, s, sees);
        soften(ctx, s, scale);
        add_values(ctx, values, s);
    }

    /// The highest score of each query, times the scale.
    constexpr two_floats highest(float scale) const { return {highest_[0] * scale, highest_[1] * scale}; }
    /// The sum of its powers.                                                                            All lanes.
    template <class Context>
    constexpr two_floats power_sums(Context& ctx) const {
        two_floats of_all_lanes = power_sums_;
        for (float& sum : of_all_lanes) {
            sum += ctx.shuffle_xor(sum, 1);
            sum += ctx.shuffle_xor(sum, 2);
        }
        return of_all_lanes;
    }
    /// The sums of values times powers, as the accumulators of mma_16x8x16.
    constexpr const sums& value_sums() const { return values_; }

 private:
    using scores = std::array<accumulators, Keys / 8>;

    static constexpr std::uint32_t word_at(const T* pair) {
        return std::bit_cast<std::uint32_t>(*reinterpret_cast<const element_pair<T>*>(pair));
    }

    /// Four matrices are B of two fragments: 8 keys and 16 elements each.
    template <class Context, class Shared>
    constexpr scores multiply_keys(Context& ctx, const Shared& keys) const {
        const std::uint32_t lane = static_cast<std::uint32_t>(ctx.lane());
        const auto mine = keys + ((lane / 16 * 8 + lane % 8) * stride + lane / 8 % 2 * 8);
        scores s{};
        for (std::uint32_t step = 0; step < HeadDim / 16; ++step)
            for (std::uint32_t n = 0; n < Keys / 8; n += 2) {
                const fragment_a four = ctx.load_matrix_x4(mine + (n * 8 * stride + step * 16));
                ctx.template mma_16x8x16<T>(s[n], queries_[step], {four[0], four[1]});
                ctx.template mma_16x8x16<T>(s[n + 1], queries_[step], {four[2], four[3]});
            }
        return s;
    }

    template <class Context, class Sees>
    static constexpr void hide(Context& ctx, scores& s, const Sees& sees) {
        const std::uint32_t t = static_cast<std::uint32_t>(ctx.lane()) % 4;
        for (std::uint32_t n = 0; n < Keys / 8; ++n)
            for (std::uint32_t i = 0; i < 4; ++i)
                if (!sees(i / 2, 8 * n + 2 * t + i % 2)) s[n][i] = no_score();
    }

    /// Scores become their powers, and what was summed so far is scaled to the highest of them.
    template <class Context>
    constexpr void soften(Context& ctx, scores& s, float scale) {
        for (std::uint32_t half = 0; half < 2; ++half) {
            float highest = highest_[half];
            for (const accumulators& of_keys : s)
                highest = std::fmax(highest, std::fmax(of_keys[2 * half], of_keys[2 * half + 1]));
            highest = std::fmax(highest, ctx.shuffle_xor(highest, 1));
            highest = std::fmax(highest, ctx.shuffle_xor(highest, 2));
            // Where a query has seen no key yet, infinity less infinity would not be a number.
            const float base = highest == no_score() ? 0.0f : highest * scale;
            const float kept = std::exp2(highest_[half] * scale - base);
            highest_[half] = highest;
            power_sums_[half] *= kept;
            for (accumulators& of_keys : s)
                for (std::uint32_t i = 2 * half; i < 2 * half + 2; ++i) {
                    of_keys[i] = std::exp2(of_keys[i] * scale - base);
                    power_sums_[half] += of_keys[i];
                }
            for (accumulators& of_values : values_)
                for (std::uint32_t i = 2 * half; i < 2 * half + 2; ++i) of_values[i] *= kept;
        }
    }

    /// Accumulators of two fragments are, rounded, the operand A for their 16 keys. Four matrices are B of two
    /// fragments: 16 keys and 8 elements each.
    template <class Context, class Shared>
    constexpr void add_values(Context& ctx, const Shared& values, const scores& powers) {
        const std::uint32_t lane = static_cast<std::uint32_t>(ctx.lane());
        const auto mine = values + (lane % 16 * stride + lane / 16 * 8);
        for (std::uint32_t step = 0; step < Keys / 16; ++step) {
            fragment_a a{};
            for (std::uint32_t i = 0; i < 4; ++i) {
                const accumulators& of_keys = powers[2 * step + i / 2];
                a[i] = ctx.template narrow_pair<T>(of_keys[i % 2 * 2], of_keys[i % 2 * 2 + 1]);
            }
            for (std::uint32_t n = 0; n < HeadDim / 8; n += 2) {
                const fragment_a four = ctx.load_matrix_x4_transposed(mine + (step * 16 * stride + n * 8));
                ctx.template mma_16x8x16<T>(values_[n], a, {four[0], four[1]});
                ctx.template mma_16x8x16<T>(values_[n + 1], a, {four[2], four[3]});
            }
        }
    }

    std::array<fragment_a, HeadDim / 16> queries_{};
    sums values_{};
    two_floats highest_{no_score(), no_score()};
    two_floats power_sums_{};  // of the keys of this lane
};

/// Begins to copy rows [first, first + Rows) of `from` into rows of `stride` elements, by `Workers` threads of which
/// this one is number `worker`. Rows from `end` on and columns beyond the last one are zeros.
template <std::size_t HeadDim, std::size_t Rows, std::size_t Workers, class Context, class T, class Shared>
constexpr void copy_rows(Context& ctx, matrix_view<const T> from, std::uint32_t first, std::uint32_t end,
                         const Shared& to, std::uint32_t worker) {
    constexpr std::uint32_t pieces = HeadDim / 8, stride = HeadDim + 8;  // pieces of 16 bytes
    constexpr std::uint32_t together = Workers / pieces;                 // rows; some threads may have none of them
    const std::uint32_t row = worker / pieces, column = worker % pieces * 8;
    if (Workers % pieces != 0 && row >= together) return;
    const T* source = from.data + (std::size_t{first} + row) * from.ld + column;
    for (std::uint32_t i = 0; i < Rows; i += together, source += together * from.ld) {
        if (Rows % together != 0 && row + i >= Rows) break;
        const bool copied = first + row + i < end && column < from.cols;
        ctx.template copy_async<16>(to + ((row + i) * stride + column), copied ? source : from.data, copied ? 16 : 0);
    }
}

}  // namespace detail

/// The kernel for head_dim up to HeadDim; see the top of this file. Rows of all matrices begin at multiples of 16
/// bytes, and head_dim is a multiple of 8.
template <tensor_element T, std::size_t HeadDim>
class attend_kernel {
 public:
    static constexpr std::size_t warps = 4;
    static constexpr std::size_t block_threads = warps * warp_size;
    static constexpr std::size_t tile_queries = 16 * warps;
    static constexpr std::size_t tile_keys = HeadDim <= 128 ? 64 : 16;  ///< with 32 for 256, sm_100 spills

    attention_shape shape;
    matrix_view<const T> q;  ///< [windows queries, heads head_dim]
    matrix_view<const T> k;  ///< [windows keys, kv_heads head_dim]
    matrix_view<const T> v;  ///< as k
    matrix_view<T> out;      ///< as q

    constexpr launch_shape launch() const {
        return {q.rows / shape.queries * tiles() * shape.heads, block_threads, 4 * tile_bytes};
    }

    template <kernel_context Context>
    constexpr void operator()(Context& ctx) const {
        const place at = place_of(ctx);
        warp_attention queries;
        queries.load_queries(ctx, {query_row<const T>(ctx, at, q, 0), query_row<const T>(ctx, at, q, 1)},
                             static_cast<std::uint32_t>(shape.head_dim));
        add_tiles(ctx, at, queries);
        store(ctx, at, queries);
    }

 private:
    using warp_attention = detail::warp_attention<T, HeadDim, tile_keys>;

    // Two stages of a tile of keys and one of values.
    static constexpr std::size_t tile_bytes = tile_keys * warp_attention::stride * sizeof(T);
    static_assert(4 * tile_bytes <= largest_shared_bytes);

    /// What a block, and in it a warp, has to do.
    struct place {
        std::uint32_t window, head;
        std::uint32_t block_query;  // the first one of the block
        std::uint32_t query;        // the first one of the warp
    };

    constexpr std::size_t tiles() const { return detail::ceil_div(shape.queries, tile_queries); }

    /// Blocks of a window follow one another, so that its keys and values stay in the cache. Late queries, which have
    /// the most keys, come first, so that processors finish together.
    template <class Context>
    constexpr place place_of(Context& ctx) const {
        const auto heads = static_cast<std::uint32_t>(shape.heads), tile_count = static_cast<std::uint32_t>(tiles());
        const auto block = static_cast<std::uint32_t>(ctx.block()), index = block % (tile_count * heads);
        const std::uint32_t query = (tile_count - 1 - index / heads) * std::uint32_t{tile_queries};
        return {block / (tile_count * heads), index % heads, query,
                query + static_cast<std::uint32_t>(ctx.warp() * warp_attention::rows)};
    }

    /// This lane's row of q or out, the first or the second one, or nullptr where there is none.
    template <class Element, class Context>
    constexpr Element* query_row(Context& ctx, const place& at, matrix_view<Element> m, std::uint32_t half) const {
        const std::size_t query = at.query + ctx.lane() / 4 + 8 * half;
        return query < shape.queries ? &m(at.window * shape.queries + query, at.head * shape.head_dim) : nullptr;
    }

    /// The part of k or v that a block reads.
    constexpr matrix_view<const T> of_head(const place& at, matrix_view<const T> m) const {
        return m.block(at.window * shape.keys, shape.keys, at.head / shape.group() * shape.head_dim, shape.head_dim);
    }

    template <class Context>
    constexpr void add_tiles(Context& ctx, const place& at, warp_attention& queries) const {
        const detail::window_view window(shape, shape.keys);
        const auto last_query = static_cast<std::uint32_t>(std::min(at.block_query + tile_queries, shape.queries) - 1);
        const std::uint32_t end = window.seen_by(last_query).last;
        std::uint32_t stage = 0, first = window.seen_by(at.block_query).first;
        begin_copies(ctx, at, first, stage);
        for (; first < end; first += tile_keys, stage ^= 1) {
            ctx.template wait_copies<0>();
            // All threads' copies are there, and nobody reads the tile before this one any more.
            ctx.barrier();
            if (first + tile_keys < end) begin_copies(ctx, at, first + tile_keys, stage ^ 1);
            add_tile(ctx, at, window, first, stage, queries);
        }
    }

    template <class Context>
    static constexpr auto tile_memory(Context& ctx, std::uint32_t stage, std::uint32_t matrix) {
        return ctx.template shared<T>((2 * stage + matrix) * std::uint32_t{tile_bytes}, tile_bytes / sizeof(T));
    }

    template <class Context>
    constexpr void begin_copies(Context& ctx, const place& at, std::uint32_t first, std::uint32_t stage) const {
        const auto worker = static_cast<std::uint32_t>(ctx.thread()), end = static_cast<std::uint32_t>(shape.keys);
        const auto copy = [&](matrix_view<const T> m, std::uint32_t matrix) {
            detail::copy_rows<HeadDim, tile_keys, block_threads>(ctx, of_head(at, m), first, end,
                                                                 tile_memory(ctx, stage, matrix), worker);
        };
        copy(k, 0);
        copy(v, 1);
        ctx.commit_copies();
    }

    /// A warp passes over tiles that none of its queries sees.
    template <class Context>
    constexpr void add_tile(Context& ctx, const place& at, const detail::window_view& window, std::uint32_t first,
                            std::uint32_t stage, warp_attention& queries) const {
        const std::uint32_t end = first + std::uint32_t{tile_keys}, last_query = at.query + 15;
        if (first >= window.seen_by(last_query).last || end <= window.seen_by(at.query).first) return;
        const bool all_seen = window.seen_by(last_query).first <= first && end <= window.seen_by(at.query).last;
        const std::uint32_t query = at.query + static_cast<std::uint32_t>(ctx.lane()) / 4;
        queries.add(ctx, tile_memory(ctx, stage, 0), tile_memory(ctx, stage, 1), detail::score_scale(shape), all_seen,
                    [&](std::uint32_t half, std::uint32_t key) { return window.sees(query + 8 * half, first + key); });
    }

    template <class Context>
    constexpr void store(Context& ctx, const place& at, const warp_attention& queries) const {
        const auto sums = queries.power_sums(ctx);
        for (std::uint32_t half = 0; half < 2; ++half) {
            T* const row = query_row(ctx, at, out, half);
            const float factor = 1.0f / sums[half];
            for (std::size_t n = 0; n < HeadDim / 8; ++n) {
                const std::size_t column = 8 * n + ctx.lane() % 4 * 2;
                const accumulators& values = queries.value_sums()[n];
                if (row != nullptr && column < shape.head_dim)
                    *reinterpret_cast<detail::element_pair<T>*>(row + column) = std::bit_cast<detail::element_pair<T>>(
                        ctx.template narrow_pair<T>(values[2 * half] * factor, values[2 * half + 1] * factor));
            }
        }
    }
};

/// Any shape and number, a warp for each query of each head: 32 keys at a time, a lane each, and then 32 elements of
/// the values. For what tensor cores do not take, and for capped scores.
template <class T>
class attend_plain_kernel {
 public:
    static constexpr std::size_t warps = 4;
    static constexpr std::size_t block_threads = warps * warp_size;

    attention_shape shape;
    const std::uint32_t* keys_in_memory;  ///< in place of shape.keys, which then is what windows lie apart; or nullptr
    matrix_view<const T> q;               ///< [windows queries, heads head_dim]
    matrix_view<const T> k;               ///< [windows keys, kv_heads head_dim]
    matrix_view<const T> v;               ///< as k
    matrix_view<T> out;                   ///< as q

    constexpr launch_shape launch() const {
        return {detail::ceil_div(q.rows * shape.heads, warps), block_threads, warps * warp_floats() * sizeof(float)};
    }

    template <kernel_context Context>
    constexpr void operator()(Context& ctx) const {
        const std::size_t index = ctx.block() * warps + ctx.warp();
        if (index >= q.rows * shape.heads) return;
        const std::size_t row = index / shape.heads, head = index % shape.heads;
        const auto memory = ctx.template shared<float>(ctx.warp() * warp_floats() * sizeof(float), warp_floats());
        for (std::size_t i = ctx.lane(); i < shape.head_dim; i += warp_size)
            memory[i] = detail::widened(ctx, q(row, head * shape.head_dim + i));
        ctx.warp_barrier();
        const auto query = static_cast<std::uint32_t>(row % shape.queries);
        const detail::key_range seen = detail::window_of(shape, keys_in_memory).seen_by(query);
        attend(ctx, memory, of_head(row, head, k, seen), of_head(row, head, v, seen),
               out.block(row, 1, head * shape.head_dim, shape.head_dim));
    }

 private:
    static constexpr std::size_t lane_elements = 8;  // of 256

    /// A query and the powers of 32 scores.
    constexpr std::size_t warp_floats() const { return shape.head_dim + warp_size; }

    /// What a query sees of k or v.
    constexpr matrix_view<const T> of_head(std::size_t row, std::size_t head, matrix_view<const T> m,
                                           detail::key_range seen) const {
        return m.block(row / shape.queries * shape.keys + seen.first, seen.last - seen.first,
                       head / shape.group() * shape.head_dim, shape.head_dim);
    }

    ///                                                       keys, values [seen, head_dim]  result [1, head_dim]
    template <class Context, class Shared>
    constexpr void attend(Context& ctx, const Shared& memory, matrix_view<const T> keys, matrix_view<const T> values,
                          matrix_view<T> result) const {
        float highest = detail::no_score(), sum = 0.0f;
        std::array<float, lane_elements> sums{};
        for (std::size_t first = 0; first < keys.rows; first += warp_size) {
            const std::size_t key = first + ctx.lane();
            const float score = key < keys.rows ? dot(ctx, memory, keys, key) : detail::no_score();
            const float before = highest;
            highest = std::fmax(highest, score);
            for (std::size_t mask = warp_size / 2; mask > 0; mask /= 2)
                highest = std::fmax(highest, ctx.shuffle_xor(highest, mask));
            const float power = std::exp2(score - highest), kept = std::exp2(before - highest);
            sum = sum * kept + power;
            memory[shape.head_dim + ctx.lane()] = power;
            ctx.warp_barrier();
            add_values(ctx, memory, values, first, kept, sums);
            ctx.warp_barrier();
        }
        for (std::size_t mask = warp_size / 2; mask > 0; mask /= 2) sum += ctx.shuffle_xor(sum, mask);
        detail::unrolled<lane_elements>([&](auto i) {
            const std::size_t column = ctx.lane() + i * warp_size;
            if (column < shape.head_dim) result(0, column) = detail::narrowed<T>(ctx, sums[i] / sum);
        });
    }

    template <class Context, class Shared>
    constexpr float dot(Context& ctx, const Shared& memory, matrix_view<const T> keys, std::size_t key) const {
        float sum = 0.0f;
        for (std::size_t i = 0; i < shape.head_dim; ++i) sum += memory[i] * detail::widened(ctx, keys(key, i));
        if (shape.cap == 0.0f) return sum * detail::score_scale(shape);
        return shape.cap * std::numbers::log2e_v<float> * std::tanh(sum * shape.scale / shape.cap);
    }

    template <class Context, class Shared>
    constexpr void add_values(Context& ctx, const Shared& memory, matrix_view<const T> values, std::size_t first,
                              float kept, std::array<float, lane_elements>& sums) const {
        const std::size_t count = std::min(values.rows - first, std::size_t{warp_size});
        detail::unrolled<lane_elements>([&](auto i) {
            const std::size_t column = ctx.lane() + i * warp_size;
            if (column >= shape.head_dim) return;
            float sum = sums[i] * kept;
            for (std::size_t j = 0; j < count; ++j)
                sum += memory[shape.head_dim + j] * detail::widened(ctx, values(first + j, column));
            sums[i] = sum;
        });
    }
};

}  // namespace gptq::cuda
