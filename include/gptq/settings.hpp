// quantize_settings: what a caller chooses about quantizing a layer, named, compared and checked in one place. The
// program's options, the description in a checkpoint, the plan of a model and the solver's options all come from it.
#pragma once

#include <array>
#include <cstddef>
#include <optional>
#include <string>
#include <string_view>

#include <gptq/error.hpp>
#include <gptq/groups.hpp>
#include <gptq/options.hpp>

namespace gptq {

/// How a layer's codes are found; round_to_nearest is the baseline that ignores the calibration inputs. awq rounds to
/// nearest, too, after scales are folded into what comes before a layer (model/scale_search.hpp), in groups that are
/// clipped (clip_groups.hpp); whole models only.
enum class quantize_method { gptq, round_to_nearest, awq };

/// Their names in programs and files, in the order of quantize_method.
inline constexpr std::array<std::string_view, 3> method_names{"gptq", "rtn", "awq"};

inline std::string method_name(quantize_method method) {
    return std::string(method_names[static_cast<std::size_t>(method)]);
}

/// The method of that name; nothing if there is none.
inline std::optional<quantize_method> method_of_name(std::string_view name) {
    for (std::size_t i = 0; i < method_names.size(); ++i)
        if (method_names[i] == name) return static_cast<quantize_method>(i);
    return std::nullopt;
}

/// The orders in which columns are quantized; each has a type in <gptq/orders.hpp>.
enum class order_kind { natural, act, act_static, group_aware };

/// Their names in programs and files, in the order of order_kind.
inline constexpr std::array<std::string_view, 4> order_names{"natural", "act", "static", "gar"};

inline std::string order_name(order_kind order) { return std::string(order_names[static_cast<std::size_t>(order)]); }

/// The order of that name; nothing if there is none.
inline std::optional<order_kind> order_of_name(std::string_view name) {
    for (std::size_t i = 0; i < order_names.size(); ++i)
        if (order_names[i] == name) return static_cast<order_kind>(i);
    return std::nullopt;
}

/// How a layer is quantized. As it is constructed, it is settings::recommended().
struct quantize_settings {
    quantize_method method = quantize_method::gptq;  ///< how codes are found
    int bits = 4;                                    ///< per weight, 2 to 8
    int group_size = 128;                            ///< input features that share a scale; per_channel: all of a row
    bool sym = true;                                 ///< no zero points
    order_kind order = order_kind::group_aware;      ///< in which columns are quantized
    /// Added to the diagonal of the Hessian, as a fraction of its mean, at least 0 and less than 1; nothing: what
    /// automatic_damping() finds for each layer.
    std::optional<double> damp_percent = std::nullopt;
    bool search = true;          ///< fit each group's range in the loop's own metric, see searched_by_loss
    std::size_t candidates = 1;  ///< sequences of codes that the loop keeps, 1 to max_candidates (k_best.hpp)
    int refine_rounds = 0;       ///< rounds of refinement after the loop, 0 to max_refine_rounds (refine.hpp)
    bool refine_scales = true;   ///< refine the scales and zero points
    bool refine_codes = true;    ///< refine the codes
    bool correct_drift = false;  ///< aim at the float model's outputs (drift.hpp); whole models only

    bool guided = false;  ///< weigh tokens by the loss's gradient (model/token_weights.hpp); whole models only
    /// SmoothQuant's alpha, 0 to 1: the share of the inputs' outliers that weights take over before they are quantized
    /// (model/scale_search.hpp); nothing: none. Whole models only.
    std::optional<double> smooth = std::nullopt;

    /// Scales of inputs are folded into what comes before layers.
    bool scales_inputs() const { return method == quantize_method::awq || smooth; }

    bool operator==(const quantize_settings&) const = default;

    /// Throws option_error, naming the setting and what would do, for one that is out of its range or that the method
    /// makes no use of.
    void check() const;
};

inline constexpr int max_refine_rounds = 100;

/// Settings with names.
namespace settings {

/// GPTQ as it was published (Frantar et al., arXiv:2210.17323, section 4): the natural order, a hundredth of the mean
/// as damping, one asymmetric grid from least to largest weight for each row.
inline quantize_settings paper(int bits = 4) {
    return {.bits = bits,
            .group_size = per_channel,
            .sym = false,
            .order = order_kind::natural,
            .damp_percent = 0.01,
            .search = false};
}

/// The default: what costs next to nothing and helps every model that was measured (docs/quality.md).
inline quantize_settings recommended(int bits = 4) { return {.bits = bits}; }

/// What did best for that number of bits (docs/quality.md).
inline quantize_settings best(int bits = 4) {
    quantize_settings s = recommended(bits);
    s.correct_drift = true;
    if (bits <= 3) s.refine_rounds = 1, s.candidates = 8;
    return s;
}

/// Round-to-nearest, with nothing that it makes no use of.
inline quantize_settings nearest(int bits = 4) {
    return {.method = quantize_method::round_to_nearest, .bits = bits, .order = order_kind::natural, .search = false};
}

/// AWQ as it was published: zero points, and nothing of the solver's.
inline quantize_settings awq(int bits = 4) {
    quantize_settings s = nearest(bits);
    s.method = quantize_method::awq;
    s.sym = false;
    return s;
}

}  // namespace settings

namespace detail {

/// "0.5", "1.0".
inline std::string digits_of(double x) {
    std::string digits = std::to_string(x);
    digits.erase(digits.find_last_not_of('0') + 1);
    return digits.ends_with('.') ? digits + "0" : digits;
}

}  // namespace detail

/// In words: "4 bits, groups of 128, symmetric, gar order, damping auto, searched".
inline std::string describe(const quantize_settings& s) {
    std::string text =
        std::to_string(s.bits) + " bits, " +
        (s.group_size == per_channel ? "one group per row" : "groups of " + std::to_string(s.group_size)) +
        (s.sym ? ", symmetric" : ", asymmetric");
    if (s.smooth) text += ", smoothed by " + detail::digits_of(*s.smooth);
    if (s.method == quantize_method::round_to_nearest) return text + ", rounded to nearest";
    if (s.method == quantize_method::awq) return text + ", scaled and clipped by awq";
    text += ", " + order_name(s.order) + " order, damping ";
    text += s.damp_percent ? detail::digits_of(*s.damp_percent) : "auto";
    if (s.search) text += ", ranges searched";
    if (s.candidates > 1) text += ", " + std::to_string(s.candidates) + " candidates";
    if (s.refine_rounds > 0) text += ", refined " + std::to_string(s.refine_rounds) + " times";
    if (s.correct_drift) text += ", drift corrected";
    if (s.guided) text += ", guided";
    return text;
}

/// What the solver takes of the settings.
inline quantize_options solver_options(const quantize_settings& s) {
    quantize_options options;
    options.damp_percent = s.damp_percent.value_or(options.damp_percent);
    options.choose_damping = !s.damp_percent;
    options.group_size = s.group_size;
    options.refine = {s.refine_rounds, s.refine_scales, s.refine_codes};
    options.candidates = s.candidates;
    return options;
}

inline void quantize_settings::check() const {
    const auto require = [](bool holds, const std::string& message) {
        if (!holds) throw option_error(message);
    };
    require(bits >= 2 && bits <= 8, "bits: " + std::to_string(bits) + " is not supported; choose 2 to 8");
    require(group_size > 0 || group_size == per_channel,
            "group_size: " + std::to_string(group_size) +
                " is not a size; give a positive number, or -1 for one group per row");
    require(!damp_percent || (*damp_percent >= 0.0 && *damp_percent < 1.0),
            "damp_percent: " + std::to_string(damp_percent.value_or(0.0)) +
                " is not a fraction of the diagonal's mean; give 0 or more, and less than 1");
    require(
        candidates >= 1 && candidates <= max_candidates,
        "candidates: " + std::to_string(candidates) + " cannot be kept; choose 1 to " + std::to_string(max_candidates));
    require(refine_rounds >= 0 && refine_rounds <= max_refine_rounds,
            "refine_rounds: " + std::to_string(refine_rounds) + " cannot be done; choose 0 to " +
                std::to_string(max_refine_rounds));
    require(!smooth || (*smooth >= 0.0 && *smooth <= 1.0),
            "smooth: " + std::to_string(smooth.value_or(0.0)) + " is not a share; give 0 to 1");
    require(!smooth || method != quantize_method::awq, "smooth: awq chooses scales itself; leave out one of the two");
    require(!smooth || !correct_drift,
            "smooth: the float model beside, which drift is corrected by, is not smoothed; leave out one of the two");
    if (method == quantize_method::gptq) return;
    require(
        order == order_kind::natural && !search && candidates == 1 && refine_rounds == 0 && !correct_drift && !guided,
        "method: rounding to nearest, also that of awq, knows no order, search, candidates, refinement, correction of "
        "drift or guidance; leave them out (settings::nearest(), settings::awq())");
}

}  // namespace gptq
