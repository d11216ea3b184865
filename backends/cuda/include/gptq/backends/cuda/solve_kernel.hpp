// The solver's loop over the columns of one block as a kernel: steps (2) to (6) of <gptq/quantize.hpp>, a warp a row.
//
// The row's weights lie in shared memory. They are quantized in tiles of up to 32 columns, of which every lane holds
// one in registers: a column costs one rounding, one shuffle and one multiplication-addition there. What a tile leaves
// of errors is fed back to the columns after it once for all, from shared memory, by all lanes. Every weight sees the
// errors in the order in which the plain loop feeds them back, so that the result is the same.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include <gptq/backends/cuda/context.hpp>
#include <gptq/backends/cuda/fit_kernel.hpp>
#include <gptq/backends/cuda/warp_sum.hpp>
#include <gptq/round_to_grid.hpp>

namespace gptq::cuda {

/// Runs quantize_row for the rows [0, rows) of a block of b columns.
template <int Bits, class Grid>
struct solve_kernel {
    static constexpr std::size_t warps = 4;
    static constexpr std::size_t block_threads = warps * warp_size;

    std::size_t rows;
    block_to_quantize<Bits, Grid> block;

    /// Whether the shared memory of a device holds rows of so many columns.
    static constexpr bool holds(std::size_t columns) {
        return columns <= largest_shared_bytes / (warps * sizeof(float));
    }
    constexpr launch_shape launch() const {
        return {(rows + warps - 1) / warps, block_threads, warps * block.T.cols * sizeof(float)};
    }

    template <kernel_context Context>
    constexpr void operator()(Context& ctx) const {
        const std::size_t r = ctx.block() * warps + ctx.warp(), b = block.T.cols;
        if (r >= rows) return;
        const auto w = ctx.template shared<float>(ctx.warp() * b * sizeof(float), b);  // [b], as block.T
        for (std::size_t i = ctx.lane(); i < b; i += warp_size) w[i] = block.T(r, i);
        ctx.warp_barrier();
        double loss = 0.0;
        for (std::size_t first = 0, width = 0; first < b; first += width) {
            width = tile_width(first);
            if (block.starts_group(first)) fit(ctx, r, first, w);
            loss += quantize_tile(ctx, r, first, width, w);
            ctx.warp_barrier();
            feed_back(ctx, first, width, w);
            ctx.warp_barrier();
        }
        for (std::size_t i = ctx.lane(); i < b; i += warp_size) block.T(r, i) = w[i];
        loss = warp_sum(ctx, loss);
        if (ctx.lane() == 0) block.loss(r, 0) += loss;
    }

 private:
    /// A weight, rounded: its code, the value of that, and the error that is fed back.
    struct rounded {
        std::uint8_t code;
        float value;
        float error;
    };

    constexpr rounded round(float weight, grid_params params, float pivot) const {
        const std::uint8_t code = block.grid.template encode<Bits>(weight, params);
        const float value = block.grid.template decode<Bits>(code, params);
        return {code, value, (weight - value) / pivot};
    }

    /// A tile ends where a group ends whose successor has to be fitted to weights that know of all errors.
    /// warp_size as a value: nvcc has no address for a constant of the host, and traps where the device asks for one.
    constexpr std::size_t tile_width(std::size_t i) const {
        const std::size_t width = std::min(std::size_t{warp_size}, block.T.cols - i);
        if (!block.fits_groups || block.group_at(0, i) == block.group_at(0, i + width - 1)) return width;
        return block.group_length(i);
    }

    /// Step (3).
    template <class Context, class Weights>
    constexpr void fit(Context& ctx, std::size_t r, std::size_t i, const Weights& w) const {
        const std::size_t n = block.group_length(i);
        const grid_params params = fit_by_lanes<Bits>(ctx, block.grid, w + i, block.costs.row(0).subspan(i, n), n);
        if (ctx.lane() == 0) block.groups.set(r, block.group_at(0, i), params);
        ctx.warp_barrier();
    }

    /// Steps (4) to (6) for the columns [first, first + width), one a lane; w becomes Err. Returns the lane's share of
    /// the loss.
    template <class Context, class Weights>
    constexpr double quantize_tile(Context& ctx, std::size_t r, std::size_t first, std::size_t width,
                                   const Weights& w) const {
        // The other lanes follow column `first` with a weight of their own: its own lane writes to it.
        const bool used = ctx.lane() < width;
        const std::size_t i = first + (used ? ctx.lane() : 0);
        const grid_params params = block.params(r, i);
        const float pivot = block.U(i, i);
        float weight = used ? w[i] : 0.0f;
        rounded mine = round(weight, params, pivot);
        for (std::size_t l = 0; l + 1 < width; ++l) {
            const float error = ctx.shuffle(mine.error, l);
            if (!used || ctx.lane() <= l) continue;
            weight -= error * block.U(first + l, i);
            mine = round(weight, params, pivot);
        }
        if (!used) return 0.0;
        block.codes(r, i) = mine.code;
        block.W(r, i) -= mine.value;
        w[i] = mine.error;
        return double{mine.error} * double{mine.error};
    }

    /// Step (6) for the columns behind a tile.
    template <class Context, class Weights>
    constexpr void feed_back(Context& ctx, std::size_t first, std::size_t width, const Weights& w) const {
        for (std::size_t j = first + width + ctx.lane(); j < block.T.cols; j += warp_size) {
            float weight = w[j];
            for (std::size_t i = first; i < first + width; ++i) weight -= w[i] * block.U(i, j);
            w[j] = weight;
        }
    }
};

}  // namespace gptq::cuda
