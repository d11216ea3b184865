// Causal attention of few queries over many keys, as generation takes it; and attend(), which chooses among the
// kernels.
//
// Reading keys and values is all the work there is, so they are read once: a block has a part of the keys of one of
// their heads, and all queries of all heads that read them are the 16 rows of its fragments. Its warps share the keys
// out, each behind a ring of asynchronous copies of its own. Warps, and by a second kernel parts, are added up in one
// order: the same call gives the same bits.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <string>
#include <type_traits>

#include <gptq/backends/cuda/attention_kernel.hpp>
#include <gptq/backends/cuda/context.hpp>
#include <gptq/backends/cuda/fragment_order.hpp>
#include <gptq/concepts.hpp>
#include <gptq/error.hpp>
#include <gptq/half.hpp>
#include <gptq/matrix_view.hpp>

namespace gptq::cuda {

namespace detail {

/// Queries of a window in the heads that read the same keys, 16 at a time.
constexpr std::size_t decode_row_tiles(const attention_shape& shape) {
    return ceil_div(shape.queries * shape.group(), 16);
}

}  // namespace detail

/// Into how many parts to split the keys for a launch of up to `blocks` blocks. A part has 64 keys at least: what its
/// warps take at once.
constexpr std::size_t attend_decode_parts(const attention_shape& shape, std::size_t blocks, std::size_t windows = 1) {
    const std::size_t seen = shape.span == 0 ? shape.keys : std::min(shape.keys, shape.span + shape.queries - 1);
    const std::size_t wanted = blocks / (windows * shape.kv_heads * detail::decode_row_tiles(shape));
    return std::clamp(wanted, std::size_t{1}, std::max(seen / 64, std::size_t{1}));
}

/// The workspace of attend_decode_kernel: for every part, query and head the sums of values times powers, then the
/// highest score and the sum of powers.
constexpr extent2 attend_decode_workspace(const attention_shape& shape, std::size_t parts, std::size_t windows = 1) {
    return {parts * windows * shape.queries * shape.heads, shape.head_dim + 2};
}

/// The kernel for head_dim up to HeadDim; see the top of this file. Rows of q, k and v begin at multiples of 16 bytes,
/// and head_dim is a multiple of 8.
template <tensor_element T, std::size_t HeadDim>
class attend_decode_kernel {
 public:
    static constexpr std::size_t warps = HeadDim <= 128 ? 4 : 2;  ///< so that two stages of each fit in shared memory
    static constexpr std::size_t block_threads = warps * warp_size;

    attention_shape shape;
    const std::uint32_t* keys_in_memory;  ///< in place of shape.keys, which then is what windows lie apart; or nullptr
    std::size_t parts;
    matrix_view<const T> q;      ///< [windows queries, heads head_dim]
    matrix_view<const T> k;      ///< [windows keys, kv_heads head_dim]
    matrix_view<const T> v;      ///< as k
    matrix_view<float> partial;  ///< see attend_decode_workspace

    constexpr launch_shape launch() const {
        return {parts * q.rows / shape.queries * shape.kv_heads * detail::decode_row_tiles(shape), block_threads,
                shared_bytes};
    }

    template <kernel_context Context>
    constexpr void operator()(Context& ctx) const {
        const place at = place_of(ctx);
        warp_attention queries;
        queries.load_queries(ctx, {query_row(at, row_of(ctx, at, 0)), query_row(at, row_of(ctx, at, 1))},
                             static_cast<std::uint32_t>(shape.head_dim));
        add_keys(ctx, at, queries);
        share(ctx, queries);
        store(ctx, at);
    }

 private:
    static constexpr std::uint32_t step_keys = 16;
    using warp_attention = detail::warp_attention<T, HeadDim, step_keys>;

    // The ring of a warp: keys and then values in each stage.
    static constexpr std::size_t matrix_bytes = step_keys * warp_attention::stride * sizeof(T);
    static constexpr std::size_t stages = std::clamp<std::size_t>(80 * 1024 / (2 * matrix_bytes * warps), 2, 4);
    static constexpr std::size_t ring_bytes = warps * stages * 2 * matrix_bytes;
    // What warps leave, where the rings were: for each row its sums, highest score and sum of powers.
    static constexpr std::size_t row_floats = HeadDim + 4;
    static constexpr std::size_t shared_floats = warps * warp_attention::rows * row_floats;
    static constexpr std::size_t shared_bytes = std::max(ring_bytes, shared_floats * sizeof(float));
    static_assert(shared_bytes <= largest_shared_bytes);

    /// What a block has to do: 16 of the queries of a window in the heads of kv_head, and a part of what they see.
    struct place {
        std::size_t part, window, kv_head;
        std::uint32_t row;  // the first one: row r is query r / group in the head r % group
        detail::window_view seen;
        detail::key_range keys;
    };

    template <class Context>
    constexpr place place_of(Context& ctx) const {
        const std::size_t row_tiles = detail::decode_row_tiles(shape), windows = q.rows / shape.queries;
        const std::size_t row_tile = ctx.block() % row_tiles, index = ctx.block() / row_tiles;
        const std::size_t part = index / shape.kv_heads / windows;
        const detail::window_view seen = detail::window_of(shape, keys_in_memory);
        return {part,
                index / shape.kv_heads % windows,
                index % shape.kv_heads,
                static_cast<std::uint32_t>(row_tile * warp_attention::rows),
                seen,
                part_of(seen, part)};
    }

    /// Parts share out what there is, in whole steps, however little: the last ones may be empty.
    constexpr detail::key_range part_of(const detail::window_view& seen, std::size_t part) const {
        const std::uint32_t first = seen.seen_by(0).first;
        const auto steps = static_cast<std::uint32_t>(detail::ceil_div(seen.keys - first, step_keys * parts));
        const auto begin = first + static_cast<std::uint32_t>(part) * steps * step_keys;
        return {std::min(begin, seen.keys), std::min(begin + steps * step_keys, seen.keys)};
    }

    template <class Context>
    static constexpr std::uint32_t row_of(Context& ctx, const place& at, std::uint32_t half) {
        return at.row + static_cast<std::uint32_t>(ctx.lane()) / 4 + 8 * half;
    }
    constexpr bool exists(std::uint32_t row) const { return row < shape.queries * shape.group(); }

    constexpr const T* query_row(const place& at, std::uint32_t row) const {
        if (!exists(row)) return nullptr;
        const std::size_t head = at.kv_head * shape.group() + row % shape.group();
        return &q(at.window * shape.queries + row / shape.group(), head * shape.head_dim);
    }

    /// Every warp takes every so manieth step of the part.
    template <class Context>
    constexpr void add_keys(Context& ctx, const place& at, warp_attention& queries) const {
        constexpr std::uint32_t stride = step_keys * std::uint32_t{warps};
        std::uint32_t copied = at.keys.first + step_keys * static_cast<std::uint32_t>(ctx.warp()), to = 0;
        for (std::size_t i = 0; i + 1 < stages; ++i, copied += stride) begin_copies(ctx, at, copied, to++);
        const auto group = static_cast<std::uint32_t>(shape.group());
        const std::array<std::uint32_t, 2> query{row_of(ctx, at, 0) / group, row_of(ctx, at, 1) / group};
        const std::uint32_t first = copied - stride * std::uint32_t{stages - 1};
        for (std::uint32_t key = first, from = 0; key < at.keys.last; key += stride, copied += stride) {
            ctx.template wait_copies<stages - 2>();
            // All lanes' copies are there, and no lane reads the step before this one any more.
            ctx.warp_barrier();
            begin_copies(ctx, at, copied, to);
            queries.add(ctx, stage_memory(ctx, from, 0), stage_memory(ctx, from, 1), detail::score_scale(shape),
                        all_see(at, key), [&](std::uint32_t half, std::uint32_t i) {
                            return key + i < at.keys.last && at.seen.sees(query[half], key + i);
                        });
            to = next(to);
            from = next(from);
        }
        ctx.template wait_copies<0>();
    }

    static constexpr std::uint32_t next(std::uint32_t stage) { return stage + 1 == stages ? 0 : stage + 1; }

    /// Whether all queries of the window see the keys of a step, which all belong to the part.
    constexpr bool all_see(const place& at, std::uint32_t key) const {
        const auto last_query = static_cast<std::uint32_t>(shape.queries - 1);
        return key + step_keys <= at.keys.last && key + step_keys <= at.seen.seen_by(0).last &&
               at.seen.seen_by(last_query).first <= key;
    }

    template <class Context>
    static constexpr auto stage_memory(Context& ctx, std::uint32_t stage, std::uint32_t matrix) {
        const std::uint32_t index = static_cast<std::uint32_t>(ctx.warp() * stages) + stage;
        return ctx.template shared<T>((2 * index + matrix) * std::uint32_t{matrix_bytes}, matrix_bytes / sizeof(T));
    }

    /// One batch, empty where the part has no such step.
    template <class Context>
    constexpr void begin_copies(Context& ctx, const place& at, std::uint32_t key, std::uint32_t stage) const {
        if (key < at.keys.last) {
            const auto lane = static_cast<std::uint32_t>(ctx.lane());
            const auto copy = [&](matrix_view<const T> m, std::uint32_t matrix) {
                detail::copy_rows<HeadDim, step_keys, warp_size>(ctx, of_head(at, m), key, at.keys.last,
                                                                 stage_memory(ctx, stage, matrix), lane);
            };
            copy(k, 0);
            copy(v, 1);
        }
        ctx.commit_copies();
    }

    /// The part of k or v that a block reads.
    constexpr matrix_view<const T> of_head(const place& at, matrix_view<const T> m) const {
        return m.block(at.window * shape.keys, shape.keys, at.kv_head * shape.head_dim, shape.head_dim);
    }

    /// Puts what each warp has into shared memory: [warp][row][row_floats].
    template <class Context>
    constexpr void share(Context& ctx, const warp_attention& queries) const {
        const auto shared = ctx.template shared<float>(0, shared_floats);
        const std::size_t g = ctx.lane() / 4, t = ctx.lane() % 4;
        const auto highest = queries.highest(detail::score_scale(shape)), power_sums = queries.power_sums(ctx);
        ctx.barrier();  // no ring is in use any more
        for (std::size_t half = 0; half < 2; ++half) {
            const std::size_t row = (ctx.warp() * warp_attention::rows + g + 8 * half) * row_floats;
            for (std::size_t n = 0; n < HeadDim / 8; ++n)
                for (std::size_t i = 0; i < 2; ++i)
                    shared[row + 8 * n + 2 * t + i] = queries.value_sums()[n][2 * half + i];
            if (t == 0) {
                shared[row + HeadDim] = highest[half];
                shared[row + HeadDim + 1] = power_sums[half];
            }
        }
        ctx.barrier();
    }

    /// Adds up what warps have, in their order; several threads have a row.
    template <class Context>
    constexpr void store(Context& ctx, const place& at) const {
        constexpr std::size_t row_threads = block_threads / warp_attention::rows;
        const auto shared = ctx.template shared<float>(0, shared_floats);
        const std::size_t row = ctx.thread() / row_threads, first = ctx.thread() % row_threads;
        const auto global_row = at.row + static_cast<std::uint32_t>(row);
        if (!exists(global_row)) return;
        const auto of_warp = [&](std::size_t warp, std::size_t i) {
            return shared[(warp * warp_attention::rows + row) * row_floats + i];
        };
        float highest = detail::no_score(), sum = 0.0f;
        for (std::size_t w = 0; w < warps; ++w) highest = std::fmax(highest, of_warp(w, HeadDim));
        const float base = highest == detail::no_score() ? 0.0f : highest;  // of an empty part
        std::array<float, warps> weights{};
        for (std::size_t w = 0; w < warps; ++w) {
            weights[w] = std::exp2(of_warp(w, HeadDim) - base);
            sum += weights[w] * of_warp(w, HeadDim + 1);
        }
        const std::size_t query = at.window * shape.queries + global_row / shape.group();
        const std::size_t head = at.kv_head * shape.group() + global_row % shape.group();
        const std::size_t to = (at.part * q.rows + query) * shape.heads + head;
        for (std::size_t i = first; i < shape.head_dim; i += row_threads) {
            float values = 0.0f;
            for (std::size_t w = 0; w < warps; ++w) values += weights[w] * of_warp(w, i);
            partial(to, i) = values;
        }
        if (first == 0) {
            partial(to, shape.head_dim) = highest;
            partial(to, shape.head_dim + 1) = sum;
        }
    }
};

/// out = the parts added up. A block for each query of each head; its warps share the parts out, because waiting for
/// memory is all that takes time.
template <class T>
class attend_decode_combine_kernel {
 public:
    static constexpr std::size_t warps = 8;
    static constexpr std::size_t block_threads = warps * warp_size;

    attention_shape shape;
    std::size_t parts;
    matrix_view<const float> partial;  ///< see attend_decode_workspace
    matrix_view<T> out;                ///< [windows queries, heads head_dim]

    constexpr launch_shape launch() const { return {results(), block_threads, warps * shape.head_dim * sizeof(float)}; }

    template <kernel_context Context>
    constexpr void operator()(Context& ctx) const {
        const auto shared = ctx.template shared<float>(0, warps * shape.head_dim);  // [warp][element]
        const float highest = highest_score(ctx), sum = power_sum(ctx, highest);
        add_parts(ctx, highest, shared);
        ctx.barrier();
        const std::size_t row = ctx.block() / shape.heads, head = ctx.block() % shape.heads;
        for (std::size_t i = ctx.thread(); i < shape.head_dim; i += block_threads) {
            float values = 0.0f;
            for (std::size_t w = 0; w < warps; ++w) values += shared[w * shape.head_dim + i];
            out(row, head * shape.head_dim + i) = detail::narrowed<T>(ctx, values / sum);
        }
    }

 private:
    static constexpr std::size_t lane_elements = 8;  // of 256

    constexpr std::size_t results() const { return out.rows * shape.heads; }

    /// What part p has for the query and head of the block.
    template <class Context>
    constexpr float part(Context& ctx, std::size_t p, std::size_t i) const {
        return partial(p * results() + ctx.block(), i);
    }

    template <class Context>
    constexpr float highest_score(Context& ctx) const {
        float highest = detail::no_score();
        for (std::size_t p = ctx.lane(); p < parts; p += warp_size)
            highest = std::fmax(highest, part(ctx, p, shape.head_dim));
        for (std::size_t mask = warp_size / 2; mask > 0; mask /= 2)
            highest = std::fmax(highest, ctx.shuffle_xor(highest, mask));
        return highest;
    }

    template <class Context>
    constexpr float power_sum(Context& ctx, float highest) const {
        float sum = 0.0f;
        for (std::size_t p = ctx.lane(); p < parts; p += warp_size)
            sum += std::exp2(part(ctx, p, shape.head_dim) - highest) * part(ctx, p, shape.head_dim + 1);
        for (std::size_t mask = warp_size / 2; mask > 0; mask /= 2) sum += ctx.shuffle_xor(sum, mask);
        return sum;
    }

    /// The values of every so manieth part, into the row of this warp.
    template <class Context, class Shared>
    constexpr void add_parts(Context& ctx, float highest, const Shared& shared) const {
        std::array<float, lane_elements> sums{};
        for (std::size_t p = ctx.warp(); p < parts; p += warps) {
            const float weight = std::exp2(part(ctx, p, shape.head_dim) - highest);
            detail::unrolled<lane_elements>([&](auto i) {
                const std::size_t element = ctx.lane() + i * warp_size;
                if (element < shape.head_dim) sums[i] += weight * part(ctx, p, element);
            });
        }
        detail::unrolled<lane_elements>([&](auto i) {
            const std::size_t element = ctx.lane() + i * warp_size;
            if (element < shape.head_dim) shared[ctx.warp() * shape.head_dim + element] = sums[i];
        });
    }
};

namespace detail {

/// f<HeadDim>() for the least that there are kernels for and that head_dim fits in.
template <class F>
void visit_head_dim(std::size_t head_dim, const F& f) {
    if (head_dim <= 64) return f.template operator()<64>();
    if (head_dim <= 96) return f.template operator()<96>();
    if (head_dim <= 128) return f.template operator()<128>();
    return f.template operator()<256>();
}

template <class T>
bool has_aligned_rows(matrix_view<T> m) {
    return m.ld % 8 == 0 && reinterpret_cast<std::uintptr_t>(m.data) % 16 == 0;
}

inline void check_attention(const attention_shape& s, extent2 q, extent2 k, extent2 v, extent2 out) {
    const bool sound = s.kv_heads > 0 && s.heads > 0 && s.heads % s.kv_heads == 0 && s.head_dim > 0 &&
                       s.head_dim <= 256 && s.scale > 0.0f && s.queries > 0 && s.keys >= s.queries &&
                       s.keys < std::size_t{1} << 31;
    if (sound && q.rows % s.queries == 0 && q.cols == s.heads * s.head_dim && out == q && v == k &&
        k == extent2{q.rows / s.queries * s.keys, s.kv_heads * s.head_dim})
        return;
    throw shape_error("attention: q " + shape_string(q.rows, q.cols) + ", k " + shape_string(k.rows, k.cols) + ", v " +
                      shape_string(v.rows, v.cols) + " and out " + shape_string(out.rows, out.cols) +
                      " for windows of " + std::to_string(s.queries) + " queries and " + std::to_string(s.keys) +
                      " keys, " + std::to_string(s.heads) + " heads on " + std::to_string(s.kv_heads) + ", of " +
                      std::to_string(s.head_dim) + " elements, with scale " + std::to_string(s.scale));
}

template <class T>
extent2 extent_of(matrix_view<T> m) {
    return {m.rows, m.cols};
}

}  // namespace detail

/// True if the kernels for tensor cores can take this: matrices 16 bytes at a time, scores as they are.
template <class T>
bool attends_by_tensor_cores(const attention_shape& shape, matrix_view<const T> q, matrix_view<const T> k,
                             matrix_view<const T> v, matrix_view<T> out) {
    return tensor_element<T> && shape.cap == 0.0f && shape.head_dim % 8 == 0 && detail::has_aligned_rows(q) &&
           detail::has_aligned_rows(k) && detail::has_aligned_rows(v) && detail::has_aligned_rows(out);
}

/// So many queries of a window at most are few.
inline constexpr std::size_t few_queries = 4;

/// The attention of few queries with `launch`, a device_launcher or a host_launcher; all memory is that of its kernels.
/// keys_in_memory, where not nullptr, points to the number of keys that windows have so far, from shape.queries to
/// shape.keys, which then is the room for them: a captured graph can be replayed while they grow.
/// parts: see attend_decode_parts; workspace: see attend_decode_workspace. Both are unused where tensor cores cannot
/// take the matrices. Throws shape_error where shapes do not fit together.
///                            q, out [windows queries, heads head_dim]  k, v [windows keys, kv_heads head_dim]
template <class T, class Launcher>
void attend_decode(const Launcher& launch, const attention_shape& shape, const std::uint32_t* keys_in_memory,
                   matrix_view<const std::type_identity_t<T>> q, matrix_view<const std::type_identity_t<T>> k,
                   matrix_view<const std::type_identity_t<T>> v, std::size_t parts, matrix_view<float> workspace,
                   matrix_view<T> out) {
    detail::check_attention(shape, detail::extent_of(q), detail::extent_of(k), detail::extent_of(v),
                            detail::extent_of(out));
    if (q.rows == 0) return;
    if constexpr (tensor_element<T>)
        if (attends_by_tensor_cores<T>(shape, q, k, v, out)) {
            const std::size_t windows = q.rows / shape.queries;
            if (parts == 0 || detail::extent_of(workspace) != attend_decode_workspace(shape, parts, windows))
                throw shape_error("attention: " + std::to_string(parts) + " parts with a workspace " +
                                  shape_string(workspace.rows, workspace.cols));
            detail::visit_head_dim(shape.head_dim, [&]<std::size_t HeadDim>() {
                const attend_decode_kernel<T, HeadDim> kernel{shape, keys_in_memory, parts, q, k, v, workspace};
                launch(kernel.launch(), kernel);
            });
            const attend_decode_combine_kernel<T> combine{shape, parts, workspace, out};
            return launch(combine.launch(), combine);
        }
    const attend_plain_kernel<T> kernel{shape, keys_in_memory, q, k, v, out};
    launch(kernel.launch(), kernel);
}

/// out = softmax(cap(scale q k'), causal) v for every head of every window, on a ProductMachine; returns before it is
/// done on a device. Throws shape_error where shapes do not fit together.
///                            q, out [windows queries, heads head_dim]  k, v [windows keys, kv_heads head_dim]
template <class T, class M>
void attend(const M& machine, const attention_shape& shape, matrix_view<const std::type_identity_t<T>> q,
            matrix_view<const std::type_identity_t<T>> k, matrix_view<const std::type_identity_t<T>> v,
            matrix_view<T> out) {
    detail::check_attention(shape, detail::extent_of(q), detail::extent_of(k), detail::extent_of(v),
                            detail::extent_of(out));
    const auto launch = [&](const launch_shape& of, const auto& kernel) { machine.launch(of, kernel); };
    const bool tensor_cores = attends_by_tensor_cores<T>(shape, q, k, v, out);
    if (shape.queries <= few_queries && tensor_cores) {
        const std::size_t windows = q.rows / shape.queries;
        const std::size_t parts =
            attend_decode_parts(shape, machine.wanted_blocks(), std::max(windows, std::size_t{1}));
        const extent2 room = attend_decode_workspace(shape, parts, windows);
        auto workspace = machine.template room_for<float>(room.rows, room.cols);
        return attend_decode<T>(launch, shape, nullptr, q, k, v, parts, workspace.view(), out);
    }
    if constexpr (tensor_element<T>)
        if (q.rows != 0 && tensor_cores)
            return detail::visit_head_dim(shape.head_dim, [&]<std::size_t HeadDim>() {
                const attend_kernel<T, HeadDim> kernel{shape, q, k, v, out};
                launch(kernel.launch(), kernel);
            });
    if (q.rows == 0) return;
    const attend_plain_kernel<T> kernel{shape, nullptr, q, k, v, out};
    launch(kernel.launch(), kernel);
}

}  // namespace gptq::cuda
