// Y = X Wq' for a few rows of X: every packed weight is read once, and tensor cores do the rest.
//
// A block of 4 warps has a strip of 64 output features and, where the layer is split, a part of its tiles; its warps
// share these out. A warp walks over its tiles behind a ring of asynchronous copies, three tiles deep. Weights are the
// operand A of mma_16x8x16 and inputs, 8 rows at a time, are B, so that few rows waste little. Codes become the numbers
// code - zero, which a half holds exactly, and so does a bfloat16; the sums of a group are multiplied by its scale in
// float. Sums of warps are added in order of the warps, those of parts by a second kernel in order of the parts: the
// same call gives the same bits.
#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <type_traits>
#include <utility>

#include <gptq/backends/cuda/context.hpp>
#include <gptq/backends/cuda/fragment_order.hpp>
#include <gptq/half.hpp>
#include <gptq/matrix_view.hpp>

namespace gptq::cuda {

namespace detail {

// What a lane loads from shared memory at once.
struct alignas(16) quad {
    std::array<std::uint32_t, 4> words;
};
struct alignas(4) half_pair {
    std::array<half, 2> values;
};
struct alignas(2) byte_pair {
    std::array<std::uint8_t, 2> values;
};

/// f(0), f(1), ..., f(Count - 1), each with a constant: arrays that are indexed by it can lie in registers, whatever
/// the compiler thinks of unrolling loops.
template <std::size_t Count, class Function>
constexpr void unrolled(const Function& f) {
    [&f]<std::size_t... I>(std::index_sequence<I...>) { (f(std::integral_constant<std::size_t, I>()), ...); }
    (std::make_index_sequence<Count>());
}

/// A walk over the steps of a layer that knows the group of each.
struct group_walk {
    std::size_t group_steps;
    std::size_t group;
    std::size_t step;  // within the group

    constexpr group_walk(std::size_t steps_of_group, std::size_t first_step)
        : group_steps(steps_of_group), group(first_step / steps_of_group), step(first_step % steps_of_group) {}
    constexpr bool begins_group() const { return step == 0; }
    constexpr void advance() {
        if (++step == group_steps) {
            step = 0;
            ++group;
        }
    }
};

/// Code pairs as the pairs code - zero of T, of which each holds all exactly.
///
/// Codes are put into the lower bits of 1024 (half) or 128 (bfloat16), where a unit in the last place is 1, and
/// 1024 + zero is subtracted. 128 + zero would not be exact for 8 bits; these take the way through floats.
template <int Bits, tensor_element T>
class pair_converter {
    static constexpr bool through_floats = Bits == 8 && std::same_as<T, bfloat16>;
    static constexpr std::uint32_t base = std::same_as<T, half> ? 0x6400'6400u : 0x4300'4300u;
    static constexpr std::uint32_t one = std::same_as<T, half> ? 0x3c00'3c00u : 0x3f80'3f80u;
    static constexpr std::uint32_t float_base = 0x4b00'0000u;  // 2^23
    static constexpr std::uint32_t sign = 0x8000'8000u;

 public:
    constexpr explicit pair_converter(std::uint32_t zero)
        : offset_(through_floats ? float_base | zero : sign | base | zero | zero << 16) {}

    template <kernel_context Context>
    constexpr std::uint32_t operator()(Context& ctx, std::uint32_t codes) const {
        if constexpr (through_floats)
            return ctx.template narrow_pair<T>(difference(codes & 0xffffu), difference(codes >> 16));
        else
            return ctx.template fma_pairs<T>(codes | base, one, offset_);
    }

 private:
    constexpr float difference(std::uint32_t code) const {
        return std::bit_cast<float>(float_base | code) - std::bit_cast<float>(offset_);
    }
    std::uint32_t offset_;
};

}  // namespace detail

/// The kernel for 1 to 8 TokenTiles rows; see the top of this file.
template <int Bits, tensor_element T, std::size_t TokenTiles>
class decode_kernel {
    static_assert(has_fragments(Bits) && TokenTiles >= 1 && TokenTiles <= 4);

 public:
    static constexpr std::size_t warps = 4;
    static constexpr std::size_t block_threads = warps * warp_size;
    static constexpr std::size_t tokens = 8 * TokenTiles;

    fragment_view weights;
    matrix_view<const T> X;      // [M <= tokens, slots used], rows beginning and ending at multiples of 16 bytes
    matrix_view<T> Y;            // [M, N], written if partial is empty
    matrix_view<float> partial;  // [parts M, N], row part * M + t, or empty: there is one part

    constexpr launch_shape launch() const { return {weights.shape.strips() * parts(), block_threads, shared_bytes}; }

    template <kernel_context Context>
    constexpr void operator()(Context& ctx) const {
        const place at = place_of(ctx);
        totals sums{};
        sum_tiles(ctx, at, sums);
        share_sums(ctx, sums);
        store_sums(ctx, at);
    }

 private:
    // The stage of a warp, one of the ring that its copies go round: what multiplying by a tile takes.
    static constexpr std::size_t weight_bytes = Bits * warp_size * 16;
    static constexpr std::size_t input_stride = tile_slots * 2 + 16;  // so that rows lie in different banks
    static constexpr std::size_t input_bytes = tokens * input_stride;
    static constexpr std::size_t scale_bytes = strip_features * sizeof(half);
    static constexpr std::size_t zero_bytes = strip_features;
    static constexpr std::size_t inputs_at = weight_bytes;
    static constexpr std::size_t scales_at = inputs_at + input_bytes;
    static constexpr std::size_t zeros_at = scales_at + tile_steps * scale_bytes;
    static constexpr std::size_t stage_bytes = zeros_at + tile_steps * zero_bytes;
    static constexpr std::size_t stages = 3 * warps * stage_bytes <= largest_shared_bytes ? 3 : 2;
    // The warps' sums, where the ring was; rows lie apart such that a warp writes to all banks.
    static constexpr std::size_t sum_stride = strip_features + 4;
    static constexpr std::size_t sum_floats = warps * tokens * sum_stride;

    static constexpr std::size_t shared_bytes = std::max(stages * warps * stage_bytes, sum_floats * sizeof(float));
    static_assert(shared_bytes <= largest_shared_bytes);

    using totals = std::array<std::array<accumulators, TokenTiles>, strip_fragments>;

    /// What a warp has to do: the tiles [first, last) of a strip.
    struct place {
        std::size_t strip, part, first, last;
    };

    constexpr std::size_t parts() const { return partial.rows == 0 ? 1 : partial.rows / X.rows; }

    template <class Context>
    constexpr place place_of(Context& ctx) const {
        const std::size_t strips = weights.shape.strips(), tiles = weights.shape.tiles;
        const std::size_t strip = ctx.block() % strips, part = ctx.block() / strips;
        const std::size_t worker = part * warps + ctx.warp(), workers = parts() * warps;
        return {strip, part, tiles * worker / workers, tiles * (worker + 1) / workers};
    }

    /// Shared memory at a byte of the stage that a tile of this warp uses.
    template <class U, class Context>
    static constexpr auto stage(Context& ctx, std::size_t tile, std::size_t offset, std::size_t bytes) {
        const std::size_t first = (ctx.warp() * stages + tile % stages) * stage_bytes + offset;
        return ctx.template shared<U>(first, bytes / sizeof(U));
    }

    // ---- copies ----

    template <class Context>
    constexpr void sum_tiles(Context& ctx, const place& at, totals& sums) const {
        detail::group_walk copied(weights.shape.group_steps, at.first * tile_steps), summed = copied;
        for (std::size_t tile = at.first; tile < at.first + stages - 1; ++tile) begin_copies(ctx, at, tile, copied);
        for (std::size_t tile = at.first; tile < at.last; ++tile) {
            ctx.template wait_copies<stages - 2>();
            // All lanes' copies are there, and no lane reads the tile before this one any more.
            ctx.warp_barrier();
            begin_copies(ctx, at, tile + stages - 1, copied);
            add_tile(ctx, tile, summed, sums);
        }
        ctx.template wait_copies<0>();
    }

    /// One batch, empty where there is no such tile.
    template <class Context>
    constexpr void begin_copies(Context& ctx, const place& at, std::size_t tile, detail::group_walk& walk) const {
        if (tile < at.last) {
            copy_weights(ctx, at.strip, tile);
            copy_inputs(ctx, tile);
            for (std::size_t s = 0; s < tile_steps; ++s, walk.advance())
                if (s == 0 || walk.begins_group()) copy_parameters(ctx, at.strip, tile, s, walk.group);
        }
        ctx.commit_copies();
    }

    template <class Context>
    constexpr void copy_weights(Context& ctx, std::size_t strip, std::size_t tile) const {
        const auto to = stage<detail::quad>(ctx, tile, 0, weight_bytes);
        const std::uint32_t* from = weights.words + (strip * weights.shape.tiles + tile) * weight_bytes / 4;
        for (std::size_t i = ctx.lane(); i < Bits * warp_size; i += warp_size)
            ctx.template copy_async<16>(to + i, from + 4 * i, 16);
    }

    /// Rows and slots that X does not have are zeros.
    template <class Context>
    constexpr void copy_inputs(Context& ctx, std::size_t tile) const {
        constexpr std::size_t pieces = tile_slots / 8;
        const auto to = stage<T>(ctx, tile, inputs_at, input_bytes);
        for (std::size_t i = ctx.lane(); i < tokens * pieces; i += warp_size) {
            const std::size_t row = i / pieces, slot = i % pieces * 8, col = tile * tile_slots + slot;
            const bool exists = row < X.rows && col < X.cols;
            ctx.template copy_async<16>(to + (row * input_stride / 2 + slot), exists ? &X(row, col) : X.data,
                                        exists ? 16 : 0);
        }
    }

    /// Scales and zero points for step s of a tile, with which a group begins or goes on.
    template <class Context>
    constexpr void copy_parameters(Context& ctx, std::size_t strip, std::size_t tile, std::size_t s,
                                   std::size_t group) const {
        const std::size_t row = strip * weights.shape.groups + std::min(group, weights.shape.groups - 1);
        const std::size_t from = row * strip_features, lane = ctx.lane();
        if (lane < scale_bytes / 16)
            ctx.template copy_async<16>(stage<half>(ctx, tile, scales_at + s * scale_bytes, scale_bytes) + 8 * lane,
                                        weights.scales + from + 8 * lane, 16);
        if (lane < zero_bytes / 16 && weights.zeros != nullptr)
            ctx.template copy_async<16>(
                stage<std::uint8_t>(ctx, tile, zeros_at + s * zero_bytes, zero_bytes) + 16 * lane,
                weights.zeros + from + 16 * lane, 16);
    }

    // ---- sums ----

    /// Inputs as fragments B: [step][token tile].
    using tile_inputs = std::array<std::array<fragment_b, TokenTiles>, tile_steps>;

    /// sums += the products with a tile.
    template <class Context>
    constexpr void add_tile(Context& ctx, std::size_t tile, detail::group_walk& walk, totals& sums) const {
        const lane_words<Bits> words = load_weights(ctx, tile);
        const tile_inputs inputs = load_inputs(ctx, tile);
        std::array<bool, tile_steps + 1> begins{};  // whether step s has other parameters than the one before
        for (std::size_t s = 0; s < tile_steps; ++s, walk.advance()) begins[s] = s == 0 || walk.begins_group();
        begins[tile_steps] = true;
        detail::unrolled<strip_fragments>([&](auto m) { add_fragment(ctx, tile, m, words, inputs, begins, sums[m]); });
    }

    /// The part of add_tile for 16 output features.
    template <class Context>
    constexpr void add_fragment(Context& ctx, std::size_t tile, std::size_t m, const lane_words<Bits>& words,
                                const tile_inputs& inputs, const std::array<bool, tile_steps + 1>& begins,
                                std::array<accumulators, TokenTiles>& sums) const {
        using converter = detail::pair_converter<Bits, T>;
        std::array<converter, 2> convert{converter(0), converter(0)};
        std::array<accumulators, TokenTiles> of_group{};
        std::array<float, 2> scales{};
        for (std::size_t s = 0; s < tile_steps; ++s) {
            if (begins[s]) {
                scales = load_scales(ctx, tile, s, m);
                convert = load_zeros(ctx, tile, s, m);
            }
            fragment_a a{};
            for (std::size_t r = 0; r < 4; ++r) a[r] = convert[r % 2](ctx, code_pair<Bits>(words, pair_index(m, s, r)));
            for (std::size_t i = 0; i < TokenTiles; ++i) ctx.template mma_16x8x16<T>(of_group[i], a, inputs[s][i]);
            if (begins[s + 1]) add_scaled(of_group, scales, sums);
        }
    }

    /// sums += of_group * scales, and of_group is ready for the next one.
    static constexpr void add_scaled(std::array<accumulators, TokenTiles>& of_group, const std::array<float, 2>& scales,
                                     std::array<accumulators, TokenTiles>& sums) {
        for (std::size_t i = 0; i < TokenTiles; ++i)
            for (std::size_t j = 0; j < 4; ++j) sums[i][j] += of_group[i][j] * scales[j / 2];
        of_group = {};
    }

    template <class Context>
    constexpr lane_words<Bits> load_weights(Context& ctx, std::size_t tile) const {
        const auto vectors = stage<detail::quad>(ctx, tile, 0, weight_bytes);
        lane_words<Bits> words{};
        for (std::size_t v = 0; v < Bits; ++v) {
            const detail::quad loaded = vectors[v * warp_size + ctx.lane()];
            for (std::size_t i = 0; i < 4; ++i) words[4 * v + i] = loaded.words[i];
        }
        return words;
    }

    /// Four matrices are the 8 slots each that B of two steps consists of.
    template <class Context>
    constexpr tile_inputs load_inputs(Context& ctx, std::size_t tile) const {
        const auto rows = stage<T>(ctx, tile, inputs_at, input_bytes);
        tile_inputs inputs{};
        for (std::size_t i = 0; i < TokenTiles; ++i)
            for (std::size_t s = 0; s < tile_steps; s += 2) {
                const std::size_t row = 8 * i + ctx.lane() % 8, slot = s * step_slots + ctx.lane() / 8 * 8;
                const fragment_a four = ctx.load_matrix_x4(rows + (row * input_stride / 2 + slot));
                inputs[s][i] = {four[0], four[1]};
                inputs[s + 1][i] = {four[2], four[3]};
            }
        return inputs;
    }

    /// The scales of the two output features of fragment m that this lane sums.
    template <class Context>
    constexpr std::array<float, 2> load_scales(Context& ctx, std::size_t tile, std::size_t s, std::size_t m) const {
        const auto scales = stage<detail::half_pair>(ctx, tile, scales_at + s * scale_bytes, scale_bytes);
        const detail::half_pair pair = scales[lane_parameter(ctx.lane(), m) / 2];
        return {ctx.widen(pair.values[0]), ctx.widen(pair.values[1])};
    }

    /// Their zero points, as what converts their codes.
    template <class Context>
    constexpr std::array<detail::pair_converter<Bits, T>, 2> load_zeros(Context& ctx, std::size_t tile, std::size_t s,
                                                                        std::size_t m) const {
        using converter = detail::pair_converter<Bits, T>;
        if (weights.zeros == nullptr) return {converter(1u << (Bits - 1)), converter(1u << (Bits - 1))};
        const auto zeros = stage<detail::byte_pair>(ctx, tile, zeros_at + s * zero_bytes, zero_bytes);
        const detail::byte_pair pair = zeros[lane_parameter(ctx.lane(), m) / 2];
        return {converter(pair.values[0]), converter(pair.values[1])};
    }

    // ---- results ----

    /// Puts each warp's sums into shared memory: [warp][token][output feature].
    template <class Context>
    constexpr void share_sums(Context& ctx, const totals& sums) const {
        const auto shared = ctx.template shared<float>(0, sum_floats);
        const std::size_t g = ctx.lane() / 4, t = ctx.lane() % 4;
        ctx.barrier();  // the ring is no longer in use
        detail::unrolled<strip_fragments>([&](auto m) {
            for (std::size_t i = 0; i < TokenTiles; ++i)
                for (std::size_t j = 0; j < 4; ++j) {
                    const std::size_t row = 16 * m + j / 2 * 8 + g, token = 8 * i + 2 * t + j % 2;
                    shared[(ctx.warp() * tokens + token) * sum_stride + row] = sums[m][i][j];
                }
        });
        ctx.barrier();
    }

    /// Adds up the warps' sums, in their order.
    template <class Context>
    constexpr void store_sums(Context& ctx, const place& at) const {
        const auto shared = ctx.template shared<float>(0, sum_floats);
        const std::size_t n = at.strip * strip_features + ctx.thread() % strip_features;
        if (n >= weights.shape.out_features) return;
        for (std::size_t t = ctx.thread() / strip_features; t < X.rows; t += block_threads / strip_features) {
            float sum = 0.0f;
            for (std::size_t w = 0; w < warps; ++w)
                sum += shared[(w * tokens + t) * sum_stride + ctx.thread() % strip_features];
            store(ctx, at.part, t, n, sum);
        }
    }

    template <class Context>
    constexpr void store(Context& ctx, std::size_t part, std::size_t t, std::size_t n, float sum) const {
        if (partial.rows != 0)
            partial(part * X.rows + t, n) = sum;
        else
            Y(t, n) = T{static_cast<std::uint16_t>(ctx.template narrow_pair<T>(sum, 0.0f))};
    }
};

}  // namespace gptq::cuda
