// The bodies of <gptq/study/plan.hpp>.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include <gptq/compiled.hpp>
#include <gptq/error.hpp>
#include <gptq/groups.hpp>
#include <gptq/io/json.hpp>
#include <gptq/io/quantization_config.hpp>
#include <gptq/io/settings_json.hpp>
#include <gptq/model/quantize_plan.hpp>
#include <gptq/quote.hpp>
#include <gptq/settings.hpp>
#include <gptq/study/cell.hpp>
#include <gptq/study/method.hpp>
#include <gptq/study/methods.hpp>
#include <gptq/study/plan.hpp>

namespace gptq::study {
namespace detail {

/// The formats that the axes may use.
inline std::vector<io::checkpoint_format> formats_of(const study_axes& axes) {
    if (axes.format) return {*axes.format};
    return {io::checkpoint_format::gptq, io::checkpoint_format::gptq_v2};
}

inline bool some_format_has_bits(const study_axes& axes, int bits) {
    const auto formats = formats_of(axes);
    return std::any_of(formats.begin(), formats.end(), [bits](io::checkpoint_format format) {
        return io::visit_layout(format, [bits]<class L>() { return L::supports(bits); });
    });
}

inline bool some_format_has_groups(const study_axes& axes, int size) {
    const auto formats = formats_of(axes);
    return std::any_of(formats.begin(), formats.end(), [size](io::checkpoint_format format) {
        // A layer that every positive size divides: what is left is what the format says.
        return model::detail::group_size_fits(format, size, size > 0 ? static_cast<std::size_t>(size) : 1);
    });
}

inline void check_bits_axis(const study_axes& axes) {
    std::string held;
    for (int bits = 2; bits <= 8; ++bits)
        if (some_format_has_bits(axes, bits)) held += (held.empty() ? "" : ", ") + std::to_string(bits);
    for (const int bits : axes.bits)
        if (!some_format_has_bits(axes, bits))
            throw option_error("bits: no checkpoint format holds " + std::to_string(bits) + " bits; choose from " +
                               held);
}

inline void check_group_axis(const study_axes& axes) {
    for (const int size : axes.group_sizes)
        if (!some_format_has_groups(axes, size))
            throw option_error("group_size: no checkpoint format holds groups of " + std::to_string(size) +
                               "; choose -1 for one group per row, or 16, 32, 64, 128, 256, 512 or 1024");
}

/// Throws option_error unless every name is one of `known`.
inline void check_names(const char* axis, const std::vector<std::string>& names, const auto& known) {
    std::string choices;
    for (const std::string_view name : known) choices += (choices.empty() ? "" : ", ") + std::string(name);
    for (const std::string& name : names)
        if (std::find(std::begin(known), std::end(known), name) == std::end(known))
            throw option_error(std::string(axis) + " " + in_quotes(name) + ": is not known; choose from " + choices);
}

/// A value, or a list of values.
template <class T>
void take_axis(const nlohmann::ordered_json& object, const char* key, const std::string& where, std::vector<T>& axis) {
    if (!object.contains(key)) return;
    const auto& given = object[key];
    const nlohmann::ordered_json list = given.is_array() ? given : nlohmann::ordered_json::array({given});
    axis.clear();
    for (const auto& value : list) {
        const nlohmann::ordered_json wrapped = {{key, value}};
        axis.push_back(io::setting<T>(wrapped, key, where).value());
    }
}

inline study_axes axes_of(const nlohmann::ordered_json& object, const study_axes& usual, const std::string& where) {
    if (!object.is_object()) throw format_error(where + ": the axes of a plan must be an object");
    static constexpr std::array<std::string_view, 13> known{
        "method", "bits",       "group_size", "grid",          "order",  "format", "damping",
        "search", "candidates", "refine",     "correct_drift", "guided", "smooth"};
    for (const auto& [key, value] : object.items()) {
        if (value.is_null()) throw format_error(where + ": " + in_quotes(key) + " has no value");
        if (std::find(known.begin(), known.end(), key) == known.end())
            throw format_error(where + ": " + in_quotes(key) + " is neither an axis nor a setting");
    }
    study_axes axes = usual;
    take_axis(object, "method", where, axes.methods);
    take_axis(object, "bits", where, axes.bits);
    take_axis(object, "group_size", where, axes.group_sizes);
    take_axis(object, "grid", where, axes.grids);
    take_axis(object, "order", where, axes.orders);
    if (const auto format = io::setting<std::string>(object, "format", where)) {
        axes.format = io::format_of_name(*format);
        if (!axes.format) throw format_error(where + ": " + in_quotes(*format) + " is no format");
    }
    nlohmann::ordered_json settings = io::settings_json(usual.fixed);
    for (const char* key : {"damping", "search", "candidates", "refine", "correct_drift", "guided", "smooth"})
        if (object.contains(key)) settings[key] = object[key];
    axes.fixed = io::settings_from_json(settings, where);
    return axes;
}

}  // namespace detail

GPTQ_INLINE std::vector<std::pair<std::string, std::string>> by_reason(std::span<const skipped_cell> skipped) {
    std::vector<std::pair<std::string, std::string>> reasons;
    for (const skipped_cell& cell : skipped) {
        const auto found =
            std::find_if(reasons.begin(), reasons.end(), [&](const auto& one) { return one.first == cell.reason; });
        if (found == reasons.end())
            reasons.emplace_back(cell.reason, cell.label);
        else
            found->second += ", " + cell.label;
    }
    return reasons;
}

GPTQ_INLINE void check_axes(const study_axes& axes) {
    const auto require = [](const auto& list, const char* axis) {
        if (list.empty()) throw option_error(std::string(axis) + ": has no value; give at least one");
    };
    require(axes.methods, "method");
    require(axes.bits, "bits");
    require(axes.group_sizes, "group_size");
    require(axes.grids, "grid");
    require(axes.orders, "order");
    for (const std::string& method : axes.methods) find_method(method);
    detail::check_names("grid", axes.grids, std::array<std::string_view, 2>{"sym", "asym"});
    detail::check_names("order", axes.orders, order_names);
    detail::check_bits_axis(axes);
    detail::check_group_axis(axes);
}

GPTQ_INLINE void add_cells(study_plan& plan, const study_axes& axes, study_depth depth,
                           const std::function<void(const study_cell&)>& fits) {
    const auto add = [&](const study_method& method, const quantize_settings& wanted) {
        study_cell cell{std::string(method.name), wanted};
        try {
            if (depth == study_depth::model && !method.in_checkpoints)
                throw option_error("no checkpoint format holds its codes; it has layer errors only (--depth layers)");
            cell.settings = method.settings_of(wanted);
            if (depth == study_depth::layers && cell.settings.scales_inputs())
                throw option_error(detail::needs_whole_model);
            if (depth == study_depth::layers) cell.settings.correct_drift = cell.settings.guided = false;
            cell.format = axes.format.value_or(usual_format(cell.settings));
            cell.settings.check();
            if (std::find(plan.cells.begin(), plan.cells.end(), cell) != plan.cells.end()) return;
            fits(cell);
            plan.cells.push_back(cell);
        } catch (const error& problem) {
            plan.skipped.push_back({label_of(cell), problem.what()});
        }
    };
    for (const std::string& method : axes.methods)
        for (const int bits : axes.bits)
            for (const int group_size : axes.group_sizes)
                for (const std::string& grid : axes.grids)
                    for (const std::string& order : axes.orders) {
                        quantize_settings wanted = axes.fixed;
                        wanted.bits = bits;
                        wanted.group_size = group_size;
                        wanted.sym = grid == "sym";
                        wanted.order = order_of_name(order).value();
                        add(find_method(method), wanted);
                    }
}

GPTQ_INLINE void check_fit(const study_cell& cell, const model::model_config& config, const io::model_folder& folder) {
    io::quantization_config wanted;
    wanted.format = cell.format;
    wanted.settings = cell.settings;
    model::plan_quantization(config, folder, wanted);
}

GPTQ_INLINE std::vector<study_axes> axes_from_json(const nlohmann::ordered_json& plan, const study_axes& usual,
                                                   const std::string& where) {
    if (!plan.is_array()) return {detail::axes_of(plan, usual, where)};
    std::vector<study_axes> all;
    for (std::size_t i = 0; i < plan.size(); ++i)
        all.push_back(detail::axes_of(plan[i], usual, where + ": [" + std::to_string(i) + "]"));
    if (all.empty()) throw format_error(where + ": the plan has no axes");
    return all;
}

}  // namespace gptq::study
