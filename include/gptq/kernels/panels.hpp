// A layer's codes, scales and zero points, laid out for the kernels: see kernel.hpp for the layout.
#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <gptq/error.hpp>
#include <gptq/half.hpp>
#include <gptq/kernels/kernel.hpp>
#include <gptq/kernels/threads.hpp>
#include <gptq/matrix_view.hpp>
#include <gptq/weight_memory.hpp>

namespace gptq::kernels {

namespace detail {

/// Codes of `Field` <= 2, 4 or 8 bits of one output feature in a run, to its words in the lines from `lines` on.
template <int Field>
void put_fields(const std::array<std::uint8_t, run_features>& codes, std::uint32_t* lines) {
    constexpr std::size_t fields = 8 / Field;  // quads of a line
    for (std::size_t quad = 0; quad < run_features / 4; ++quad)
        for (std::size_t byte = 0; byte < 4; ++byte)
            lines[quad / fields * panel_width] |= std::uint32_t{codes[4 * quad + byte]}
                                                  << (8 * byte + Field * (quad % fields));
}

/// The same for a code of `bits` bits.
inline void put_codes(int bits, const std::array<std::uint8_t, run_features>& codes, std::uint32_t* lines) {
    switch (bits) {
        case 2: return put_fields<2>(codes, lines);
        case 4: return put_fields<4>(codes, lines);
        case 8: return put_fields<8>(codes, lines);
        default: break;
    }
    std::array<std::uint8_t, run_features> low, high;
    for (std::size_t i = 0; i < run_features; ++i) {
        low[i] = codes[i] & 3;
        high[i] = codes[i] >> 2;
    }
    put_fields<2>(low, lines);
    put_fields<1>(high, lines + 2 * panel_width);
}

}  // namespace detail

/// In which order the kernels take the input features of a layer: group by group, each in segments.
class feature_order {
 public:
    /// g_idx [K]: the group of each input feature; in [0, groups). Throws shape_error where one is not.
    feature_order(std::span<const std::int32_t> g_idx, std::size_t groups) : order_(g_idx.size()) {
        std::vector<std::size_t> begin(groups + 1);
        for (std::size_t k = 0; k < g_idx.size(); ++k) {
            if (g_idx[k] < 0 || static_cast<std::size_t>(g_idx[k]) >= groups)
                throw shape_error("prepare: g_idx[" + std::to_string(k) + "] = " + std::to_string(g_idx[k]) +
                                  " names none of the " + std::to_string(groups) + " groups");
            ++begin[static_cast<std::size_t>(g_idx[k]) + 1];
        }
        for (std::size_t g = 0; g < groups; ++g) {
            add_segments(begin[g + 1], g);
            begin[g + 1] += begin[g];
        }
        for (std::size_t k = 0; k < g_idx.size(); ++k) order_[begin[static_cast<std::size_t>(g_idx[k])]++] = k;
        sorted_ = std::is_sorted(g_idx.begin(), g_idx.end());
    }

    std::span<const segment> segments() const { return segments_; }
    std::size_t runs() const { return runs_; }
    std::size_t size() const { return order_.size(); }

    /// Whether inputs that are held for one of the two are as the other takes them.
    bool takes_as(const feature_order& other) const {
        return features_ == other.features_ && ((sorted_ && other.sorted_) || order_ == other.order_);
    }

    /// f(s, features): segment s holds the input features features[0], features[1], ...
    template <class F>
    void for_each_segment(const F& f) const {
        std::span<const std::size_t> rest(order_);
        for (std::size_t s = 0; s < segments_.size(); ++s) {
            f(s, rest.first(features_[s]));
            rest = rest.subspan(features_[s]);
        }
    }

    /// The features of a segment are neighbours and fill its runs, whatever the segment.
    bool contiguous(std::size_t s) const { return sorted_ && features_[s] == segments_[s].runs * run_features; }

 private:
    void add_segments(std::size_t features, std::size_t group) {
        constexpr std::size_t most = segment_runs * run_features;
        for (; features != 0; features -= features_.back()) {
            features_.push_back(std::min(features, most));
            const std::size_t runs = (features_.back() + run_features - 1) / run_features;
            segments_.push_back({static_cast<std::uint32_t>(runs), static_cast<std::uint32_t>(group)});
            runs_ += runs;
        }
    }

    std::vector<std::size_t> order_;     // [K], position -> input feature
    std::vector<segment> segments_;      // [S]
    std::vector<std::size_t> features_;  // [S], input features of each
    std::size_t runs_ = 0;               // of all segments
    bool sorted_ = true;                 // order_ is the identity
};

/// The weights of a layer in panels. They do not change any more: copies share them.
class panels {
 public:
    panels() = default;

    /// `bits` is 2, 3, 4 or 8, scales and zeros [N, G]; `levels` is null for codes that stand for themselves.
    /// codes_of(first, room) gives the codes of the output features from `first` on as a matrix_view<const
    /// std::uint8_t> [room.rows, K], for any number of panels at a time. It may put them into `room`, a
    /// matrix_view<std::uint8_t>, and return `room`. Throws std::bad_alloc.
    template <class CodesOf>
    panels(int bits, const feature_order& features, matrix_view<const float> scales,
           matrix_view<const std::uint8_t> zeros, std::shared_ptr<const level_table> levels, weight_memory& memory,
           const CodesOf& codes_of)
        : bits_(bits),
          groups_(scales.cols),
          count_((scales.rows + panel_width - 1) / panel_width),
          lines_of_panel_(features.runs() * static_cast<std::size_t>(bits)),
          zero_groups_(all_equal(zeros) ? 1 : groups_),
          lines_(memory.zeros<line>(count_ * lines_of_panel_)),
          zeros_(memory.zeros<std::uint8_t>(zeros_of_panel() * count_)),
          levels_(std::move(levels)) {
        if (all_halves(scales))
            half_scales_ = memory.zeros<std::uint32_t>(count_ * groups_ * lanes);
        else
            scales_ = memory.zeros<float>(count_ * groups_ * panel_width);
        in_parallel(count_, default_threads(), [&](std::size_t first, std::size_t last) {
            matrix<std::uint8_t> room(panel_width, features.size());
            for (std::size_t p = first; p < last; ++p) {
                const std::size_t n = p * panel_width, width = std::min(panel_width, scales.rows - n);
                put_parameters(p, scales.block(n, width, 0, groups_), zeros.block(n, width, 0, groups_));
                put_codes(p, features, codes_of(n, room.view().block(0, width, 0, features.size())));
            }
        });
    }

    std::size_t count() const { return count_; }

    /// What is read when the layer is multiplied by one row.
    std::size_t bytes() const {
        const std::size_t of_scale = half_scales_ ? sizeof(half) : sizeof(float);
        return count_ * (lines_of_panel_ * sizeof(line) + groups_ * panel_width * of_scale + zeros_of_panel());
    }

    panel_view view(std::size_t p, std::span<const segment> segments) const {
        const std::size_t first = p * groups_;  // of its groups
        return {segments.data(),
                segments.size(),
                lines_.get()[p * lines_of_panel_].words,
                scales_ ? scales_.get() + first * panel_width : nullptr,
                half_scales_ ? half_scales_.get() + first * lanes : nullptr,
                zeros_.get() + p * zeros_of_panel(),
                zero_groups_ == groups_ ? panel_width : 0,
                levels_.get()};
    }

 private:
    struct alignas(64) line {
        std::uint32_t words[panel_width];
    };

    /// As in symmetric layers.
    static bool all_equal(matrix_view<const std::uint8_t> zeros) {
        for (std::size_t n = 0; n < zeros.rows; ++n)
            for (const std::uint8_t zero : zeros.row(n))
                if (zero != zeros(0, 0)) return false;
        return true;
    }

    /// As in files: what a product reads of them halves.
    static bool all_halves(matrix_view<const float> scales) {
        for (std::size_t n = 0; n < scales.rows; ++n)
            for (const float scale : scales.row(n))
                if (std::bit_cast<std::uint32_t>(round_to_half(scale)) != std::bit_cast<std::uint32_t>(scale))
                    return false;
        return true;
    }

    std::size_t zeros_of_panel() const { return zero_groups_ * panel_width; }

    void put_parameters(std::size_t p, matrix_view<const float> scales, matrix_view<const std::uint8_t> zeros) {
        for (std::size_t g = 0; g < groups_; ++g)
            for (std::size_t n = 0; n < scales.rows; ++n) put_scale((p * groups_ + g) * panel_width, n, scales(n, g));
        for (std::size_t g = 0; g < zero_groups_; ++g)
            for (std::size_t n = 0; n < zeros.rows; ++n)
                zeros_.get()[p * zeros_of_panel() + g * panel_width + n] = zeros(n, g);
    }

    /// That of output n of the panel, of the group whose scales begin at `first`.
    void put_scale(std::size_t first, std::size_t n, float scale) {
        if (scales_)
            scales_.get()[first + n] = scale;
        else
            half_scales_.get()[first / 2 + n % lanes] |= std::uint32_t{to_half(scale).bits} << (n < lanes ? 0 : 16);
    }

    void put_codes(std::size_t p, const feature_order& features, matrix_view<const std::uint8_t> codes) {
        line* next = lines_.get() + p * lines_of_panel_;
        features.for_each_segment([&](std::size_t, std::span<const std::size_t> of_segment) {
            for (std::size_t first = 0; first < of_segment.size(); first += run_features) {
                put_run(codes, of_segment.subspan(first, std::min(run_features, of_segment.size() - first)), next);
                next += bits_;
            }
        });
    }

    void put_run(matrix_view<const std::uint8_t> codes, std::span<const std::size_t> features, line* lines) const {
        for (std::size_t n = 0; n < codes.rows; ++n) {
            std::array<std::uint8_t, run_features> run{};
            const std::uint8_t* row = codes.row(n).data();
            for (std::size_t i = 0; i < features.size(); ++i) run[i] = row[features[i]];
            detail::put_codes(bits_, run, lines->words + n);
        }
    }

    int bits_ = 0;
    std::size_t groups_ = 0;
    std::size_t count_ = 0;
    std::size_t lines_of_panel_ = 0;
    std::size_t zero_groups_ = 0;                   // groups, or 1 where all zeros are equal
    std::shared_ptr<line[]> lines_;                 // [count, lines_of_panel]
    std::shared_ptr<std::uint8_t[]> zeros_;         // [count, zero_groups, panel_width]
    std::shared_ptr<float[]> scales_;               // [count, groups, panel_width], or
    std::shared_ptr<std::uint32_t[]> half_scales_;  // [count, groups, lanes]
    std::shared_ptr<const level_table> levels_;
};

}  // namespace gptq::kernels
