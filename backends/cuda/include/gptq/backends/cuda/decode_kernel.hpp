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

/// f(0), f(1), ..., f(Count - 1), each with a constant: arrays that are indexed by it can lie in registers, whatever
/// the compiler thinks of unrolling loops.
template <std::size_t Count, class Function>
constexpr void unrolled(const Function& f) {
    [&f]<std::size_t... I>(std::index_sequence<I...>) { (f(std::integral_constant<std::size_t, I>()), ...); }
    (std::make_index_sequence<Count>());
}

/// A walk over the steps of a layer that knows the group of each.
struct group_walk {
    std::uint32_t group_steps;
    std::uint32_t group;
    std::uint32_t step;  // within the group

    constexpr group_walk(std::size_t steps_of_group, std::size_t first_step)
        : group_steps(static_cast<std::uint32_t>(steps_of_group)),
          group(static_cast<std::uint32_t>(first_step / steps_of_group)),
          step(static_cast<std::uint32_t>(first_step % steps_of_group)) {}
    constexpr bool begins_group() const { return step == 0; }
    /// Whether the next `steps` are of one group.
    constexpr bool stays(std::uint32_t steps) const { return step + steps <= group_steps; }
    /// By so many steps as stay in the group.
    constexpr void advance(std::uint32_t steps) {
        step += steps;
        if (step == group_steps) {
            step = 0;
            ++group;
        }
    }
};

/// Code pairs as the pairs code - zero of T, of which each holds all exactly.
///
/// Codes are put into the mantissa of 1024 (half) or 128 (bfloat16), from its bit `field` on, where a unit is 2^field;
/// times 2^-field less (1024 2^-field + zero) they are what they should be. 128 + zero would not be exact for 8 bits;
/// these take the way through floats. Where the mantissa has room for two codes, every second pair of a word is left in
/// its place, which saves a shift.
template <int Bits, tensor_element T>
class pair_converter {
    static constexpr bool through_floats = Bits == 8 && std::same_as<T, bfloat16>;
    static constexpr bool is_half = std::same_as<T, half>;
    static constexpr std::uint32_t mantissa = is_half ? 10 : 7;
    static constexpr std::uint32_t twice = 0x0001'0001u;
    static constexpr std::uint32_t base = (is_half ? 0x6400u : 0x4300u) * twice;
    static constexpr std::uint32_t one = is_half ? 0x3c00u : 0x3f80u;
    static constexpr std::uint32_t exponent = std::uint32_t{1} << mantissa;  // a unit of it
    static constexpr std::uint32_t float_base = 0x4b00'0000u;                // 2^23
    static constexpr std::uint32_t sign = 0x8000'8000u;
    static constexpr std::size_t pairs_of_word = 16 / static_cast<std::size_t>(Bits);
    static constexpr bool in_place = Bits != 3 && 2 * Bits <= static_cast<int>(mantissa);

    static constexpr std::uint32_t offset_at(std::uint32_t field, std::uint32_t zero) {
        return sign | (((base & 0xffffu) - field * exponent) | zero << field) * twice;
    }

 public:
    constexpr explicit pair_converter(std::uint32_t zero)
        : offset_(through_floats ? float_base | zero : offset_at(0, zero)), shifted_(offset_at(shift, zero)) {}

    /// Pair number `pair` of a lane.
    template <kernel_context Context>
    constexpr std::uint32_t operator()(Context& ctx, const lane_words<Bits>& words, std::size_t pair) const {
        if constexpr (through_floats) {
            const std::uint32_t codes = code_pair<Bits>(words, pair);
            return ctx.template narrow_pair<T>(difference(codes & 0xffffu), difference(codes >> 16));
        } else if constexpr (Bits == 3) {
            const std::uint32_t low = ctx.put_bits(words[pair / 8] >> (pair % 8 * 2), 3 * twice, base);
            const std::uint32_t high = words[8 + pair / 16], at = pair % 16;
            return ctx.template fma_pairs<T>(ctx.put_bits(at < 2 ? high << (2 - at) : high >> (at - 2), 4 * twice, low),
                                             one * twice, offset_);
        } else {
            const bool second = in_place && pair % 2 != 0;
            const std::size_t at = pair % pairs_of_word - (second ? 1 : 0);
            const std::uint32_t word = words[pair / pairs_of_word] >> (at * Bits);
            return ctx.template fma_pairs<T>(ctx.put_bits(word, second ? mask << shift : mask, base),
                                             (second ? one - shift * exponent : one) * twice,
                                             second ? shifted_ : offset_);
        }
    }

 private:
    static constexpr std::uint32_t shift = in_place ? static_cast<std::uint32_t>(Bits) : 0;
    static constexpr std::uint32_t mask = ((1u << Bits) - 1) * twice;

    constexpr float difference(std::uint32_t code) const {
        return std::bit_cast<float>(float_base | code) - std::bit_cast<float>(offset_);
    }
    std::uint32_t offset_, shifted_;
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
    matrix_view<const T> X;      ///< [M <= tokens, slots used], rows beginning and ending at multiples of 16 bytes
    matrix_view<T> Y;            ///< [M, N], written if partial is empty
    matrix_view<float> partial;  ///< [parts M, N], row part * M + t, or empty: there is one part

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
    static constexpr std::size_t row_pieces = tile_slots / 8;         // copies of 16 bytes that a row of inputs takes
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

    /// What a warp has to do: the tiles [first, last) of a strip, and where that strip's memory begins.
    struct place {
        std::size_t strip, part;
        std::uint32_t first, last;
        const std::uint32_t* words;
        const half* scales;
        const std::uint8_t* zeros;
        const T* inputs;  // of the first row and slot that this lane copies
    };

    /// A tile on the way of a warp, and the stage that it uses.
    struct cursor {
        std::uint32_t tile, ring;
        detail::group_walk groups;
        constexpr void advance() {
            ++tile;
            ring = ring + 1 == stages ? 0 : ring + 1;
        }
    };

    constexpr std::size_t parts() const { return partial.rows == 0 ? 1 : partial.rows / X.rows; }

    // Numbers of 32 bits where they are used for each tile: a GPU has no registers of 64.
    template <class Context>
    static constexpr std::uint32_t lane_of(Context& ctx) {
        return static_cast<std::uint32_t>(ctx.lane());
    }

    template <class Context>
    constexpr place place_of(Context& ctx) const {
        const std::size_t strips = weights.shape.strips(), tiles = weights.shape.tiles;
        const std::size_t strip = ctx.block() % strips, part = ctx.block() / strips;
        const std::size_t worker = part * warps + ctx.warp(), workers = parts() * warps;
        const std::size_t parameters = strip * weights.shape.groups * strip_features;
        return {strip,
                part,
                static_cast<std::uint32_t>(tiles * worker / workers),
                static_cast<std::uint32_t>(tiles * (worker + 1) / workers),
                weights.words + strip * tiles * (weight_bytes / 4),
                weights.scales + parameters,
                weights.zeros == nullptr ? nullptr : weights.zeros + parameters,
                X.data + ctx.lane() / row_pieces * X.ld + ctx.lane() % row_pieces * 8};
    }

    /// Shared memory at a byte of a stage of this warp.
    template <class U, class Context>
    static constexpr auto stage(Context& ctx, std::uint32_t ring, std::size_t offset, std::size_t bytes) {
        const std::uint32_t index = static_cast<std::uint32_t>(ctx.warp() * stages) + ring;
        return ctx.template shared<U>(index * static_cast<std::uint32_t>(stage_bytes) + offset, bytes / sizeof(U));
    }

    // ---- copies ----

    template <class Context>
    constexpr void sum_tiles(Context& ctx, const place& at, totals& sums) const {
        cursor copied{at.first, 0, {weights.shape.group_steps, at.first * tile_steps}}, summed = copied;
        for (std::size_t i = 0; i + 1 < stages; ++i) begin_copies(ctx, at, copied);
        while (summed.tile < at.last) {
            ctx.template wait_copies<stages - 2>();
            // All lanes' copies are there, and no lane reads the tile before this one any more.
            ctx.warp_barrier();
            begin_copies(ctx, at, copied);
            add_tile(ctx, summed, sums);
        }
        ctx.template wait_copies<0>();
    }

    /// One batch, empty where there is no such tile.
    template <class Context>
    constexpr void begin_copies(Context& ctx, const place& at, cursor& to) const {
        if (to.tile < at.last) {
            copy_weights(ctx, at, to);
            copy_inputs(ctx, at, to);
            if (to.groups.stays(tile_steps)) {
                copy_parameters(ctx, at, to, 0);
                to.groups.advance(tile_steps);
            } else {
                for (std::size_t s = 0; s < tile_steps; ++s, to.groups.advance(1))
                    if (s == 0 || to.groups.begins_group()) copy_parameters(ctx, at, to, s);
            }
        }
        ctx.commit_copies();
        to.advance();
    }

    template <class Context>
    constexpr void copy_weights(Context& ctx, const place& at, const cursor& tile) const {
        const auto to = stage<detail::quad>(ctx, tile.ring, 0, weight_bytes);
        const std::uint32_t* from = at.words + (tile.tile * std::uint32_t{weight_bytes / 4} + 4 * lane_of(ctx));
        for (std::size_t i = 0; i < Bits; ++i)
            ctx.template copy_async<16>(to + (i * warp_size + lane_of(ctx)), from + 4 * i * warp_size, 16);
    }

    /// Rows and slots that X does not have are zeros.
    template <class Context>
    constexpr void copy_inputs(Context& ctx, const place& at, const cursor& tile) const {
        constexpr std::uint32_t pieces = row_pieces, rows = warp_size / pieces;  // of all lanes at once
        const auto to = stage<T>(ctx, tile.ring, inputs_at, input_bytes);
        const std::uint32_t row = lane_of(ctx) / pieces, slot = lane_of(ctx) % pieces * 8;
        const std::uint32_t first = tile.tile * std::uint32_t{tile_slots};
        const bool exists = first + slot < X.cols;
        for (std::uint32_t i = 0; i < tokens / rows; ++i) {
            const bool copied = exists && row + i * rows < X.rows;
            const T* const from = at.inputs + (i * rows * static_cast<std::uint32_t>(X.ld) + first);
            ctx.template copy_async<16>(to + ((row + i * rows) * (input_stride / 2) + slot), copied ? from : X.data,
                                        copied ? 16 : 0);
        }
    }

    /// Scales and zero points for step s of a tile, with which a group begins or goes on.
    template <class Context>
    constexpr void copy_parameters(Context& ctx, const place& at, const cursor& tile, std::size_t s) const {
        const std::uint32_t last = static_cast<std::uint32_t>(weights.shape.groups - 1), lane = lane_of(ctx);
        const std::uint32_t from = std::min(tile.groups.group, last) * std::uint32_t{strip_features};
        if (lane < scale_bytes / 16)
            ctx.template copy_async<16>(
                stage<half>(ctx, tile.ring, scales_at + s * scale_bytes, scale_bytes) + 8 * lane,
                at.scales + (from + 8 * lane), 16);
        if (lane < zero_bytes / 16 && at.zeros != nullptr)
            ctx.template copy_async<16>(
                stage<std::uint8_t>(ctx, tile.ring, zeros_at + s * zero_bytes, zero_bytes) + 16 * lane,
                at.zeros + (from + 16 * lane), 16);
    }

    // ---- sums ----

    /// Inputs as fragments B: [step][token tile].
    using tile_inputs = std::array<std::array<fragment_b, TokenTiles>, tile_steps>;

    /// sums += the products with a tile.
    template <class Context>
    constexpr void add_tile(Context& ctx, cursor& tile, totals& sums) const {
        const lane_words<Bits> words = load_weights(ctx, tile.ring);
        const tile_inputs inputs = load_inputs(ctx, tile.ring);
        std::array<bool, tile_steps + 1> begins{true};  // whether step s has other parameters than the one before
        begins[tile_steps] = true;
        if (tile.groups.stays(tile_steps)) {
            tile.groups.advance(tile_steps);
            detail::unrolled<strip_fragments>(
                [&](auto m) { add_fragment<true>(ctx, tile.ring, m, words, inputs, begins, sums[m]); });
        } else {
            for (std::size_t s = 0; s < tile_steps; ++s, tile.groups.advance(1))
                begins[s] = s == 0 || tile.groups.begins_group();
            detail::unrolled<strip_fragments>(
                [&](auto m) { add_fragment<false>(ctx, tile.ring, m, words, inputs, begins, sums[m]); });
        }
        tile.advance();
    }

    /// The part of add_tile for 16 output features. OneGroup: nothing begins within the tile.
    template <bool OneGroup, class Context>
    constexpr void add_fragment(Context& ctx, std::uint32_t ring, std::size_t m, const lane_words<Bits>& words,
                                const tile_inputs& inputs, const std::array<bool, tile_steps + 1>& begins,
                                std::array<accumulators, TokenTiles>& sums) const {
        using converter = detail::pair_converter<Bits, T>;
        std::array<converter, 2> convert{converter(0), converter(0)};
        std::array<accumulators, TokenTiles> of_group{};
        std::array<float, 2> scales{};
        for (std::size_t s = 0; s < tile_steps; ++s) {
            if (OneGroup ? s == 0 : begins[s]) {
                scales = load_scales(ctx, ring, s, m);
                convert = load_zeros(ctx, ring, s, m);
            }
            fragment_a a{};
            for (std::size_t r = 0; r < 4; ++r) a[r] = convert[r % 2](ctx, words, pair_index(m, s, r));
            for (std::size_t i = 0; i < TokenTiles; ++i) ctx.template mma_16x8x16<T>(of_group[i], a, inputs[s][i]);
            if (OneGroup ? s + 1 == tile_steps : begins[s + 1]) add_scaled(of_group, scales, sums);
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
    constexpr lane_words<Bits> load_weights(Context& ctx, std::uint32_t ring) const {
        const auto vectors = stage<detail::quad>(ctx, ring, 0, weight_bytes);
        lane_words<Bits> words{};
        for (std::size_t v = 0; v < Bits; ++v) {
            const detail::quad loaded = vectors[v * warp_size + ctx.lane()];
            for (std::size_t i = 0; i < 4; ++i) words[4 * v + i] = loaded.words[i];
        }
        return words;
    }

    /// Four matrices are the 8 slots each that B of two steps consists of.
    template <class Context>
    constexpr tile_inputs load_inputs(Context& ctx, std::uint32_t ring) const {
        const auto rows = stage<T>(ctx, ring, inputs_at, input_bytes);
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
    constexpr std::array<float, 2> load_scales(Context& ctx, std::uint32_t ring, std::size_t s, std::size_t m) const {
        const auto scales = stage<detail::half_pair>(ctx, ring, scales_at + s * scale_bytes, scale_bytes);
        const detail::half_pair pair = scales[lane_parameter(ctx.lane(), m) / 2];
        return {ctx.widen(pair.values[0]), ctx.widen(pair.values[1])};
    }

    /// Their zero points, as what converts their codes.
    template <class Context>
    constexpr std::array<detail::pair_converter<Bits, T>, 2> load_zeros(Context& ctx, std::uint32_t ring, std::size_t s,
                                                                        std::size_t m) const {
        using converter = detail::pair_converter<Bits, T>;
        // Selected and not branched over, so that the fragments of a tile stay one run of instructions.
        const auto zeros = stage<detail::byte_pair>(ctx, ring, zeros_at + s * zero_bytes, zero_bytes);
        const detail::byte_pair pair = zeros[lane_parameter(ctx.lane(), m) / 2];
        const bool symmetric = weights.zeros == nullptr;
        const auto zero = [&](std::size_t i) { return symmetric ? 1u << (Bits - 1) : std::uint32_t{pair.values[i]}; };
        return {converter(zero(0)), converter(zero(1))};
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
