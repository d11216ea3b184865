// The solver's loop over the columns of a block on the CPU: 16 rows at a time, by kernels for the processor's
// instruction set. It computes the same as quantize_row, up to rounding.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <type_traits>
#include <vector>

#include <gptq/backends/cpu/square.hpp>
#include <gptq/concepts.hpp>
#include <gptq/grids/affine.hpp>
#include <gptq/kernels/dispatch.hpp>
#include <gptq/round_to_grid.hpp>

namespace gptq::detail {

/// searched_by_loss<Grid>, its losses summed by a kernel, which knows affine grids only.
template <AffineGrid Grid>
struct searched_by_kernel : Grid {
    kernels::column_kernels kernel;

    template <int Bits>
    grid_params fit(std::span<const float> w, std::span<const float> costs) const {
        constexpr float max_code = (1 << Bits) - 1;
        const std::size_t whole = w.size() / kernels::tile_lanes * kernels::tile_lanes, rest = w.size() - whole;
        std::array<float, kernels::tile_lanes> last_weights{}, last_costs{};
        std::copy_n(w.begin() + static_cast<std::ptrdiff_t>(whole), rest, last_weights.begin());
        std::copy_n(costs.begin() + static_cast<std::ptrdiff_t>(whole), rest, last_costs.begin());
        const kernels::costly_weights front{w.data(), costs.data(), whole};
        const kernels::costly_weights back{last_weights.data(), last_costs.data(), rest == 0 ? 0 : kernels::tile_lanes};
        return search_range<Grid, Bits, searched_by_loss<Grid>::mirrored>(w, [&](grid_params p) {
            return double{kernel.loss(front, p.scale, p.zero, max_code)} + kernel.loss(back, p.scale, p.zero, max_code);
        });
    }
    template <int Bits>
    grid_params fit(std::span<const float> w) const {
        return fit<Bits>(w, std::vector<float>(w.size(), 1.0f));
    }
};

/// The grid as the CPU backend fits it. The kernel's losses are those of affine grids.
template <class Grid>
Grid with_kernels(const Grid& grid, const kernels::column_kernels&) {
    return grid;
}
template <AffineGrid Grid>
searched_by_kernel<Grid> with_kernels(const searched_by_loss<Grid>& grid, const kernels::column_kernels& kernel) {
    return {grid, kernel};
}

/// The same work with such grids.
template <int Bits, class Grid>
auto with_kernels(const block_to_quantize<Bits, Grid>& b, const kernels::column_kernels& kernel) {
    using fitted_by_kernel = decltype(with_kernels(b.grid, kernel));
    return block_to_quantize<Bits, fitted_by_kernel>{
        {b}, b.groups, b.codes, b.group_at, b.fits_groups, b.candidates, with_kernels(b.grid, kernel)};
}
template <int Bits, class Grid>
auto with_kernels(const groups_to_fit<Bits, Grid>& fit, const kernels::column_kernels& kernel) {
    using fitted_by_kernel = decltype(with_kernels(fit.grid, kernel));
    return groups_to_fit<Bits, fitted_by_kernel>{fit.W,           fit.costs,          fit.groups,
                                                 fit.first_group, fit.group_features, with_kernels(fit.grid, kernel)};
}

/// Up to 16 rows of a block on their way through the loop; its memory serves one tile after the other.
template <int Bits, AffineGrid Grid>
class row_tile {
 public:
    row_tile(const block_to_quantize<Bits, Grid>& block, const kernels::column_kernels& kernel)
        : block_(block),
          kernel_(kernel),
          weights_(block.T.cols),
          values_(block.T.cols),
          codes_(block.T.cols),
          group_(block.T.cols) {}

    /// What quantize_row does to each of the rows [first, first + count), count <= 16.
    void quantize(std::size_t first, std::size_t count) {
        rows_ = {first, count};
        const std::size_t columns = block_.T.cols;
        losses_.fill(0.0f);
        load();
        for (std::size_t i = 0, n = 0; i < columns; i += n) {
            n = block_.group_length(i);
            enter_group(i, n);
            kernel_.quantize({weights_[0].data(), values_[0].data(), codes_[0].data(), losses_.data(), block_.U.data,
                              block_.U.ld, i, i + n, columns, scales_.data(), zeros_.data(), (1 << Bits) - 1});
        }
        store();
    }

 private:
    template <class T>
    using lanes = std::array<T, kernels::tile_lanes>;

    void load() {
        for_each_square(
            rows_.count, block_.T.cols,
            [&](std::size_t lane, std::size_t i) {
                square::load([&](std::size_t r) { return &block_.T(rows_.first + lane + r, i); })
                    .turned()
                    .store([&](std::size_t c) { return &weights_[i + c][lane]; });
            },
            [&](std::size_t lane, std::size_t i) { weights_[i][lane] = block_.T(rows_.first + lane, i); });
        for (std::size_t lane = 0; lane < rows_.count; ++lane) {
            const std::size_t r = rows_.first + lane;
            ask_for(block_.W.row(r));
            if (r + kernels::tile_lanes < block_.T.rows) ask_for(block_.T.row(r + kernels::tile_lanes));
        }
    }

    /// What this tile stores to and the next one loads: short pieces of long rows, which the processor does not
    /// foresee.
    static void ask_for(std::span<float> piece) {
        constexpr std::size_t line = 16;
        for (std::size_t i = 0; i < piece.size(); i += line) __builtin_prefetch(&piece[i], 1);
    }

    /// Fits the grids of the group whose columns [i, i + n) come next, if that is to be done, and loads them.
    void enter_group(std::size_t i, std::size_t n) {
        const std::size_t g = block_.group_at(0, i);
        for (std::size_t lane = 0; lane < rows_.count; ++lane) {
            const std::size_t r = rows_.first + lane;
            if (block_.fits_groups) block_.groups.set(r, g, fit(lane, i, n));
            const grid_params params = block_.groups.get(r, g);
            scales_[lane] = params.scale;
            zeros_[lane] = params.zero;
        }
    }
    grid_params fit(std::size_t lane, std::size_t i, std::size_t n) {
        for (std::size_t j = 0; j < n; ++j) group_[j] = weights_[i + j][lane];
        return fit_group<Bits>(with_kernels(block_.grid, kernel_), std::span<const float>(group_.data(), n),
                               block_.costs.row(0).subspan(i, n));
    }

    void store() {
        for_each_square(
            rows_.count, block_.T.cols, [&](std::size_t lane, std::size_t i) { store_square(lane, i); },
            [&](std::size_t lane, std::size_t i) {
                block_.T(rows_.first + lane, i) = weights_[i][lane];
                block_.W(rows_.first + lane, i) -= values_[i][lane];
            });
        for (std::size_t lane = 0; lane < rows_.count; ++lane) {
            const std::size_t r = rows_.first + lane;
            // By spans of their own: to compilers, a byte that is stored may be part of any member.
            const std::span<std::uint8_t> codes = block_.codes.row(r);
            const std::span<const lanes<std::uint32_t>> found = codes_;
            for (std::size_t i = 0; i < codes.size(); ++i) codes[i] = static_cast<std::uint8_t>(found[i][lane]);
            block_.loss(r, 0) += double{losses_[lane]};
        }
    }
    void store_square(std::size_t lane, std::size_t i) {
        const auto w = [&](std::size_t r) { return &block_.W(rows_.first + lane + r, i); };
        square::load([&](std::size_t c) { return &weights_[i + c][lane]; }).turned().store([&](std::size_t r) {
            return &block_.T(rows_.first + lane + r, i);
        });
        square left = square::load(w);
        const square values = square::load([&](std::size_t c) { return &values_[i + c][lane]; }).turned();
        for (std::size_t r = 0; r < square::size; ++r) left.rows[r] -= values.rows[r];
        left.store(w);
    }

    const block_to_quantize<Bits, Grid>& block_;
    const kernels::column_kernels& kernel_;
    struct {
        std::size_t first = 0, count = 0;
    } rows_;
    std::vector<lanes<float>> weights_, values_;  // [b, 16]
    std::vector<lanes<std::uint32_t>> codes_;     // [b, 16]
    std::vector<float> group_;                    // [b], the weights of a row and group
    lanes<float> scales_{}, zeros_{}, losses_{};  // of a row each
};

}  // namespace gptq::detail
