// K-best search in place of the nearest plane: fewer errors than rounding each weight to the nearest value leaves, for
// the same grids and file format.
//
// The loop of <gptq/quantize.hpp> finds codes as Babai's nearest plane algorithm does (Chen et al., "The Geometry of
// LLM Quantization: GPTQ as Babai's Nearest Plane Algorithm", 2025): each column is rounded once, to the nearest value,
// although what is not nearest may leave less loss in the columns after it. Decoders of lattices keep K partial
// sequences of codes instead of one (Guo and Nilsson, "Algorithm and Implementation of the K-Best Sphere Decoding for
// MIMO Detection", 2006). Here, for a row and some columns whose grids are known when the first of them is reached:
//
//   one candidate: no codes, loss 0, the up-to-date weights                                    in code:
//   for each column i:
//     each candidate proposes the nearest code and the better one of that code's neighbours     propose
//     of these, the K with the least loss, that of the candidate plus err^2, become candidates  enlist
//     each of them takes err U[i,i:] from its weights of the columns after i                    follow
//   the codes of the candidate with the least loss                                             trace_back
//
// The loop then goes on from those codes as from its own: errors, updates and loss are its own. What is searched at
// once ends with the group, because the next group's grid is fitted to weights that know of all errors; where grids are
// known before the loop or are wider than a block, with the block.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

#include <gptq/grids/params.hpp>
#include <gptq/matrix_view.hpp>
#include <gptq/options.hpp>

namespace gptq {

namespace detail {

/// The columns that are searched at once are no more than these.
inline constexpr std::size_t search_columns = 128;

/// The candidates for the codes of some columns of one row; its memory serves one run of columns after the other.
class candidate_list {
 public:
    constexpr explicit candidate_list(std::size_t most) : most_(most) {}

    /// Starts over with the up-to-date weights of up to search_columns columns.                            w [n]
    constexpr void start(std::span<const float> w) {
        column_ = 0;
        count_ = 1;
        losses_[0] = 0.0f;
        for (std::size_t j = 0; j < w.size(); ++j) weights_[0][0][j] = w[j];
    }

    /// Decides the next column: `grid` rounds by `params`, u is the row of U from that column on.      u [columns left]
    template <int Bits, class Grid>
    constexpr void advance(const Grid& grid, grid_params params, std::span<const float> u) {
        shortlist_count_ = 0;
        for (std::size_t c = 0; c < count_; ++c) propose<Bits>(grid, params, u[0], c);
        for (std::size_t c = 0; c < shortlist_count_; ++c) follow(shortlist_[c], c, u);
        count_ = shortlist_count_;
        ++column_;
    }

    /// The best candidate's codes.                                                                        codes [n]
    constexpr void trace_back(std::span<std::uint8_t> codes) const {
        std::size_t c = 0;
        for (std::size_t i = codes.size(); i-- > 0; c = choices_[i][c].parent) codes[i] = choices_[i][c].code;
    }

 private:
    struct choice {
        std::uint8_t parent, code;
    };
    struct proposal {
        float loss, error;
        choice chosen;
    };

    /// The nearest code to candidate c's weight, and the better one of that code's neighbours.
    template <int Bits, class Grid>
    constexpr void propose(const Grid& grid, grid_params params, float pivot, std::size_t c) {
        const float w = weights_[column_ % 2][c][column_];
        const auto of_code = [&](int code) {
            const auto q = static_cast<std::uint8_t>(code);
            const float error = (w - grid.template decode<Bits>(q, params)) / pivot;
            return proposal{losses_[c] + error * error, error, {static_cast<std::uint8_t>(c), q}};
        };
        const int nearest = grid.template encode<Bits>(w, params), last = (1 << Bits) - 1;
        const proposal below = of_code(nearest > 0 ? nearest - 1 : 1);
        const proposal above = of_code(nearest < last ? nearest + 1 : last - 1);
        enlist(of_code(nearest));
        enlist(below.loss < above.loss ? below : above);
    }

    /// Keeps the best proposals in the order of their losses, an earlier one before a later one of equal loss.
    constexpr void enlist(const proposal& p) {
        std::size_t at = shortlist_count_;
        if (at < most_)
            ++shortlist_count_;
        else if (!(p.loss < shortlist_[--at].loss))
            return;
        for (; at > 0 && p.loss < shortlist_[at - 1].loss; --at) shortlist_[at] = shortlist_[at - 1];
        shortlist_[at] = p;
    }

    /// Makes a proposal candidate c of the next column.
    constexpr void follow(const proposal& p, std::size_t c, std::span<const float> u) {
        const float* const from = weights_[column_ % 2][p.chosen.parent].data() + column_;
        float* const to = weights_[(column_ + 1) % 2][c].data() + column_;
        for (std::size_t j = 1; j < u.size(); ++j) to[j] = from[j] - p.error * u[j];
        losses_[c] = p.loss;
        choices_[column_][c] = p.chosen;
    }

    template <class T>
    using for_each_candidate = std::array<T, max_candidates>;

    std::size_t most_, count_ = 0, column_ = 0, shortlist_count_ = 0;
    for_each_candidate<float> losses_{};                                              // rising
    for_each_candidate<proposal> shortlist_{};                                        // rising losses
    std::array<for_each_candidate<std::array<float, search_columns>>, 2> weights_{};  // of this column and of the next
    std::array<for_each_candidate<choice>, search_columns> choices_{};                // by column
};

}  // namespace detail

/// Steps (2) to (6) for row r of Block, a block_to_quantize, its codes found by search among block.candidates
/// candidates (1: the codes of quantize_row). Time: candidates times that of quantize_row within the columns searched
/// at once, and as much to propose and to sort; memory: 20 KB of stack.
template <int Bits, class Block>
struct k_best_row {
    Block block;

    constexpr void operator()(std::size_t r) const {
        detail::candidate_list list(block.candidates);
        std::array<std::uint8_t, detail::search_columns> codes{};
        const std::size_t b = block.T.cols;
        for (std::size_t i = 0, n = 0; i < b; i += n) {
            if (block.starts_group(i)) block.fit(r, i);
            // As a value: nvcc has no address for a constant of the host, and traps where the device asks for one.
            n = std::min(std::size_t{detail::search_columns}, block.fits_groups ? block.group_length(i) : b - i);
            search(list, r, i, std::span<std::uint8_t>(codes.data(), n));
            for (std::size_t j = 0; j < n; ++j) block.settle_code(r, i + j, codes[j]);
        }
    }

 private:
    constexpr void search(detail::candidate_list& list, std::size_t r, std::size_t i,
                          std::span<std::uint8_t> codes) const {
        list.start(block.T.row(r).subspan(i, codes.size()));
        for (std::size_t j = i, left = codes.size(); left > 0; ++j, --left)
            list.template advance<Bits>(block.grid, block.params(r, j), block.U.row(j).subspan(j, left));
        list.trace_back(codes);
    }
};

}  // namespace gptq
