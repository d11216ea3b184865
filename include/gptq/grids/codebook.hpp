// Grids of any values that scale: value = scale * level, with a table of levels.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <utility>

#include <gptq/grids/affine.hpp>
#include <gptq/grids/half_scale.hpp>
#include <gptq/grids/params.hpp>

namespace gptq {

/// A grid whose levels are Table::values, a constexpr std::array<float, 2^Bits>. They rise, so that neighbours are
/// neighbouring codes; where there are fewer than 2^Bits, the last one is repeated.
/// The largest weight of a group, or of its side where the levels reach further on the other, takes the outermost
/// level. Every zero point is 0. Its number of bits is that of its table: it is a grid for no other. `Scale` says which
/// scales files can hold.
template <class Table, class Scale = half_scale>
struct codebook : Scale {
    using Scale::storable;
    static constexpr bool sym = false;  ///< 0 is not the middle of the codes

    template <int Bits>
    requires(Table::values.size() == std::size_t{1} << Bits) static constexpr auto levels() {
        static_assert(rises(), "gptq::codebook: the values must rise; only the last one may be repeated");
        return Table::values;
    }

    template <int Bits>
    requires(Table::values.size() == std::size_t{1} << Bits) static constexpr grid_params
        fit(std::span<const float> w) {
        const detail::weight_range range = detail::range_of(w);
        return from_range<Bits>(range.lo, range.hi);
    }
    /// The grid over [lo, hi], lo <= 0 <= hi.
    template <int Bits>
    static constexpr grid_params from_range(float lo, float hi) {
        constexpr auto table = levels<Bits>();
        const float below = table.front() < 0.0f ? lo / table.front() : 0.0f;
        const float above = table.back() > 0.0f ? hi / table.back() : 0.0f;
        const float scale = std::max(below, above);
        return {scale > 0.0f ? storable(scale) : 1.0f, 0};
    }

    /// The code whose value is nearest to x; that of the lower level in the middle between two.
    template <int Bits>
    static constexpr std::uint8_t encode(float x, grid_params p) {
        constexpr auto middles = middles_of(levels<Bits>());
        const float level = x / p.scale;
        if constexpr (!unrolled)
            return static_cast<std::uint8_t>(std::lower_bound(middles.begin(), middles.end(), level) - middles.begin());
        else
            return [&]<std::size_t... I>(std::index_sequence<I...>) {
                return static_cast<std::uint8_t>((0 + ... + (level > middles[I] ? 1 : 0)));
            }
        (steps());
    }

    /// decode(encode(x)), in fewer instructions.
    template <int Bits>
    static constexpr float nearest(float x, grid_params p) {
        constexpr auto table = levels<Bits>();  // as a value: CUDA's compiler has no address for a constant of the host
        constexpr auto middles = middles_of(table);
        if constexpr (!unrolled) return decode<Bits>(encode<Bits>(x, p), p);
        const float level = x / p.scale;
        return p.scale * last_passed(table, [&](std::size_t i) { return level > middles[i]; });
    }

    /// The value that a code stands for.
    template <int Bits>
    static constexpr float decode(std::uint8_t code, grid_params p) {
        constexpr auto table = levels<Bits>();
        if constexpr (!unrolled) return p.scale * (table[code] - static_cast<float>(p.zero));
        const float level = last_passed(table, [code](std::size_t i) { return code > i; });
        return p.scale * (level - static_cast<float>(p.zero));
    }

    /// Whether the levels below 0 are not those above it: the same grid with a negative scale has other values then.
    static constexpr bool lopsided() {
        const std::size_t distinct = distinct_levels();
        for (std::size_t i = 0; i < distinct; ++i)
            if (Table::values[i] != -Table::values[distinct - 1 - i]) return true;
        return false;
    }

 private:
    /// Whether each level is compared with in turn, without a branch or a table in memory.
    static constexpr bool unrolled = Table::values.size() <= 16;
    using steps = std::make_index_sequence<Table::values.size() - 1>;

    static constexpr std::size_t distinct_levels() {
        std::size_t count = Table::values.size();
        while (count > 1 && Table::values[count - 2] == Table::values[count - 1]) --count;
        return count;
    }
    static constexpr bool rises() {
        for (std::size_t i = 1; i < distinct_levels(); ++i)
            if (!(Table::values[i - 1] < Table::values[i])) return false;
        return true;
    }
    /// Where one level ceases to be the nearest and the next begins; beyond everything for one that is a repetition.
    template <std::size_t Count>
    static constexpr std::array<float, Count - 1> middles_of(const std::array<float, Count>& table) {
        std::array<float, Count - 1> middles{};
        for (std::size_t i = 0; i + 1 < Count; ++i)
            middles[i] =
                i + 1 < distinct_levels() ? 0.5f * (table[i] + table[i + 1]) : std::numeric_limits<float>::infinity();
        return middles;
    }
    /// The level after the last step for which passed(step), the first one without any.
    template <std::size_t Count, class Passed>
    static constexpr float last_passed(const std::array<float, Count>& table, const Passed& passed) {
        float level = table[0];
        [&]<std::size_t... I>(std::index_sequence<I...>) { ((level = passed(I) ? table[I + 1] : level), ...); }
        (steps());
        return level;
    }
};

}  // namespace gptq
