// check_grid: holds a QuantGrid to its sentences in <gptq/concepts.hpp>.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include <gptq/concepts.hpp>
#include <gptq/grids/params.hpp>
#include <gptq/half.hpp>
#include <gptq/quantized.hpp>
#include <gptq/testing/violations.hpp>

namespace gptq::testing {

namespace detail {

struct named_group {
    std::string name;
    std::vector<float> weights;
};

/// Groups as they occur in models, and groups at the limits of floats.
inline std::vector<named_group> weight_groups() {
    std::vector<named_group> groups = {{"all weights 0", std::vector<float>(8, 0.0f)},
                                       {"a single weight", {0.37f}},
                                       {"a single negative weight", {-2.5f}},
                                       {"one outlier", {0.01f, -0.02f, 100.0f, 0.005f}}};
    random_numbers random(1);
    const auto make = [&](const char* name, std::size_t size, auto&& weight) {
        named_group group{name, std::vector<float>(size)};
        for (float& w : group.weights) w = weight(random.real());
        groups.push_back(std::move(group));
    };
    for (const std::size_t size : {2u, 31u, 128u}) {
        make("random weights", size, [](float x) { return x; });
        make("positive weights", size, [](float x) { return 2.0f + x; });
        make("negative weights", size, [](float x) { return x - 2.0f; });
        make("weights around 1e-30", size, [](float x) { return x * 1e-30f; });
        make("weights around 1e30", size, [](float x) { return x * 1e30f; });
    }
    return groups;
}

template <int Bits, class Grid>
class grid_check {
 public:
    explicit grid_check(const Grid& grid) : grid_(grid) {}

    violations run() {
        const auto groups = weight_groups();
        bool always_middle = true;
        for (const auto& group : groups) {
            name_ = group.name;
            const grid_params p = grid_.template fit<Bits>(group.weights);
            always_middle = always_middle && p.zero == middle;
            if (check_params(p)) check_codes(group.weights, p);
            if (grid_.template fit<Bits>(std::vector<float>(group.weights)) != p)
                report(4, "fit gives other parameters for the same weights");
        }
        name_ = "all groups";
        if (!Grid::sym && always_middle) report(5, "every zero point is the middle, but sym is false");
        if constexpr (LevelGrid<Grid, Bits>) check_levels(AffineGrid<Grid> ? 7 : 8);
        return std::move(found_);
    }

 private:
    static constexpr int middle = 1 << (Bits - 1);
    static constexpr int code_count = 1 << Bits;

    void report(int sentence, const std::string& what) {
        found_.push_back(violation("QuantGrid", sentence, std::to_string(Bits) + " bits, " + name_ + ": " + what));
    }

    bool check_params(grid_params p) {
        const bool scale_fits = std::isfinite(p.scale) && p.scale != 0.0f && round_to_half(p.scale) == p.scale;
        const bool zero_fits = p.zero < code_count;
        if (!scale_fits) report(1, "scale " + text(p.scale) + " is not a finite half other than 0");
        if (!zero_fits) report(1, "zero point " + std::to_string(p.zero) + " is no code");
        if (Grid::sym && p.zero != middle)
            report(5, "zero point " + std::to_string(p.zero) + ", but sym is true and the middle is " +
                          std::to_string(middle));
        return scale_fits && zero_fits;
    }

    void check_codes(const std::vector<float>& weights, grid_params p) {
        std::vector<float> values;
        for (int code = 0; code < code_count; ++code)
            values.push_back(grid_.template decode<Bits>(static_cast<std::uint8_t>(code), p));
        std::set<int> returned;
        for (const float x : probes(weights, values)) {
            const int code = grid_.template encode<Bits>(x, p);
            if (code >= code_count) return report(2, "encode(" + text(x) + ") is " + std::to_string(code));
            const float value = values[static_cast<std::size_t>(code)];
            const auto nearer = std::find_if(values.begin(), values.end(),
                                             [&](float other) { return clearly_nearer(x, other, value); });
            if (nearer != values.end())
                return report(2,
                              "encode(" + text(x) + ") stands for " + text(value) + ", but there is " + text(*nearer));
            returned.insert(code);
        }
        for (const int code : returned) {
            const float value = values[static_cast<std::size_t>(code)];
            const int again = grid_.template encode<Bits>(value, p);
            if (again != code)
                return report(3, "encode(decode(" + std::to_string(code) + ")) is " + std::to_string(again));
        }
    }

    /// Whether decode gives scale * (level - zero), also for scales and zero points that fit would not choose.
    void check_levels(int sentence) {
        const auto levels = level_table(levels_of<Bits>(grid_));
        for (const float scale : {1.0f, -0.75f, 0x1p-10f, 1000.0f})
            for (const int zero : {0, 1, middle, code_count - 1})
                for (int code = 0; code < code_count; ++code) {
                    const float level = levels[static_cast<std::size_t>(code)];
                    const float value = grid_.template decode<Bits>(static_cast<std::uint8_t>(code),
                                                                    {scale, static_cast<std::uint8_t>(zero)});
                    const double expected = double{scale} * (double{level} - zero);
                    const double slack = 2.0 * double{std::numeric_limits<float>::epsilon()} *
                                         std::fabs(double{scale}) * (std::fabs(double{level}) + zero);
                    if (std::fabs(double{value} - expected) <= slack) continue;
                    return report(sentence, "decode(" + std::to_string(code) + ") is " + text(value) + " with scale " +
                                                text(scale) + " and zero point " + std::to_string(zero) +
                                                ", but the level is " + text(level));
                }
    }

    /// The weights, every value, the middles between neighbours and what is just beside them, and points far outside.
    static std::vector<float> probes(const std::vector<float>& weights, std::vector<float> values) {
        std::vector<float> probes = weights;
        std::sort(values.begin(), values.end());
        for (std::size_t i = 0; i < values.size(); ++i) {
            probes.push_back(values[i]);
            if (i == 0) continue;
            const float step = values[i] - values[i - 1];
            for (const float part : {0.25f, 0.49f, 0.5f, 0.51f, 0.75f}) probes.push_back(values[i - 1] + part * step);
        }
        const float width = values.back() - values.front();
        for (const float outside : {values.front() - width, values.back() + width, -3e38f, 3e38f})
            probes.push_back(outside);
        return probes;
    }

    /// Whether `other` is nearer to x than `value` by more than rounding: x lies beyond the middle between them.
    static bool clearly_nearer(double x, double other, double value) {
        const double largest = std::max({std::fabs(x), std::fabs(other), std::fabs(value)});
        const double slack = 4.0 * double{std::numeric_limits<float>::epsilon()} * largest;
        const double middle_point = 0.5 * (other + value);
        return other > value ? x > middle_point + slack : other < value && x < middle_point - slack;
    }

    const Grid& grid_;
    std::string name_;
    violations found_;
};

}  // namespace detail

/// Holds `grid` to sentences 1 to 5, 7 and 8 of QuantGrid, for `Bits` bits: random groups, groups that are all zero,
/// positive, negative, tiny or huge, and every code, against a search over all values. Takes well under a second.
template <int Bits, class Grid>
requires QuantGrid<Grid, Bits>
[[nodiscard]] violations check_grid(const Grid& grid = {}) { return detail::grid_check<Bits, Grid>(grid).run(); }

}  // namespace gptq::testing
