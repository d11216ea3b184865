// A layer with the levels that its codes stand for, as the kernels take them.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>

#include <gptq/error.hpp>
#include <gptq/kernels/kernel.hpp>
#include <gptq/matrix_view.hpp>
#include <gptq/quantized.hpp>

namespace gptq::kernels {

namespace detail {

/// Levels as whole numbers: level = lowest + unit * byte.
struct whole_levels {
    double lowest, unit;
    std::array<std::uint8_t, 256> bytes;  // of each code
};

/// The bytes of levels in the largest unit, a power of two, that makes whole numbers of all; nothing where none makes
/// numbers of them that a byte of the kernels holds.
inline std::optional<whole_levels> find_whole_levels(std::span<const float> levels) {
    whole_levels whole{*std::min_element(levels.begin(), levels.end()), 0.0, {}};
    const double width = double{*std::max_element(levels.begin(), levels.end())} - whole.lowest;
    if (!(width > 0.0) || !std::isfinite(width)) return std::nullopt;
    const auto steps = [&](float level) { return (double{level} - whole.lowest) / whole.unit; };
    for (whole.unit = std::exp2(std::floor(std::log2(width)));
         steps(*std::max_element(levels.begin(), levels.end())) <= level_table::largest_byte; whole.unit /= 2) {
        if (!std::all_of(levels.begin(), levels.end(), [&](float l) { return steps(l) == std::floor(steps(l)); }))
            continue;
        for (std::size_t c = 0; c < levels.size(); ++c) whole.bytes[c] = static_cast<std::uint8_t>(steps(levels[c]));
        return whole;
    }
    return std::nullopt;
}

}  // namespace detail

/// What is needed of a layer to lay it out, in the memory of the view or of its own. Where inputs become integers,
/// whole levels become bytes, and scales and zero points follow their unit; codes of more than 4 bits are replaced by
/// their bytes. All else that is not affine becomes a table of floats. The values of the weights stay exactly what they
/// are.
class leveled_layer {
 public:
    /// Throws shape_error where the layer has not 2^bits levels.
    leveled_layer(const_quantized_view q, int bits, bool integers) : q_(q), bits_(bits) {
        if (q.levels.empty()) return;
        const std::size_t count = bits >= 2 && bits <= 8 ? std::size_t{1} << bits : 0;
        if (q.levels.size() != count)
            throw shape_error("prepare: a layer of " + std::to_string(bits) + " bits with " +
                              std::to_string(q.levels.size()) + " levels; each code has one");
        if (integers && bits >= 4 && use_bytes()) return;
        auto table = std::make_shared<level_table>();
        for (std::size_t i = 0; i < std::size(table->floats); ++i) table->floats[i] = q.levels[i % count];
        levels_ = levels_as::floats;
        table_ = std::move(table);
    }

    int bits() const { return bits_; }
    levels_as levels() const { return levels_; }
    std::shared_ptr<const level_table> table() const { return table_; }
    matrix_view<const float> scales() const { return q_.scales; }       ///< [N, G]
    matrix_view<const std::uint8_t> zeros() const { return q_.zeros; }  ///< [N, G]
    std::span<const std::int32_t> g_idx() const { return q_.g_idx; }    ///< [K]

    /// The codes of the output features from `first` on, as panels asks for them.                   room [count, K]
    matrix_view<const std::uint8_t> codes(std::size_t first, matrix_view<std::uint8_t> room) const {
        const auto codes = q_.codes.block(first, room.rows, 0, q_.codes.cols);
        if (!whole_ || levels_ == levels_as::bytes) return codes;
        for (std::size_t n = 0; n < room.rows; ++n)
            for (std::size_t k = 0; k < room.cols; ++k) room(n, k) = whole_->bytes[codes(n, k)];
        return room;
    }

 private:
    /// value = scale (level - zero) = (scale unit) (byte - (zero - lowest) / unit). False, with nothing done, where the
    /// levels are no bytes, or scales or zero points in their unit are not what kernels hold.
    bool use_bytes() {
        const auto whole = detail::find_whole_levels(q_.levels);
        if (!whole) return false;
        matrix<float> scales(q_.scales.rows, q_.scales.cols);
        matrix<std::uint8_t> zeros(q_.zeros.rows, q_.zeros.cols);
        const auto unit = static_cast<float>(whole->unit);
        for (std::size_t n = 0; n < scales.rows(); ++n)
            for (std::size_t g = 0; g < scales.cols(); ++g) {
                const float scale = q_.scales(n, g) * unit;
                const double zero = (static_cast<double>(q_.zeros(n, g)) - whole->lowest) / whole->unit;
                if (scale / unit != q_.scales(n, g) || zero != std::floor(zero) || zero < 0.0 || zero > 255.0)
                    return false;
                scales(n, g) = scale;
                zeros(n, g) = static_cast<std::uint8_t>(zero);
            }
        whole_ = whole;
        scales_ = std::move(scales);
        zeros_ = std::move(zeros);
        q_.scales = scales_.view();
        q_.zeros = zeros_.view();
        if (bits_ > level_table::small_bits) return true;
        auto table = std::make_shared<level_table>();
        std::copy_n(whole->bytes.begin(), std::size(table->bytes), std::begin(table->bytes));
        table_ = std::move(table);
        levels_ = levels_as::bytes;
        return true;
    }

    const_quantized_view q_;
    int bits_;
    levels_as levels_ = levels_as::codes;
    std::shared_ptr<const level_table> table_;
    std::optional<detail::whole_levels> whole_;
    matrix<float> scales_;        // [N, G], or none
    matrix<std::uint8_t> zeros_;  // [N, G], or none
};

}  // namespace gptq::kernels
