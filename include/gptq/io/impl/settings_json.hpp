// The bodies of <gptq/io/settings_json.hpp>.
#pragma once

#include <cstddef>
#include <string>

#include <nlohmann/json.hpp>

#include <gptq/compiled.hpp>
#include <gptq/error.hpp>
#include <gptq/io/json.hpp>
#include <gptq/io/settings_json.hpp>
#include <gptq/settings.hpp>

namespace gptq::io {
namespace detail {

/// Puts the value of `key`, where there is one, in the place of `value`.
template <class T>
void take_setting(const nlohmann::ordered_json& object, const char* key, const std::string& where, T& value) {
    if (const auto found = setting<T>(object, key, where)) value = *found;
}

inline void take_order(const nlohmann::ordered_json& object, const std::string& where, order_kind& order) {
    std::string name = order_name(order);
    take_setting(object, "order", where, name);
    const auto known = order_of_name(name);
    if (!known) throw format_error(where + ": \"order\" is \"" + name + "\", which is no order");
    order = *known;
}

/// Those of the method that the object names; of GPTQ where it names none that is known.
inline quantize_settings usual_settings(const nlohmann::ordered_json& object, const std::string& where) {
    switch (
        method_of_name(setting<std::string>(object, "method", where).value_or("")).value_or(quantize_method::gptq)) {
        case quantize_method::round_to_nearest: return settings::nearest();
        case quantize_method::awq: return settings::awq();
        default: return settings::recommended();
    }
}

inline void take_refinement(const nlohmann::ordered_json& object, const std::string& where, quantize_settings& s) {
    if (!object.contains("refine")) return;
    const auto& refine = object["refine"];
    if (!refine.is_object()) throw format_error(where + ": \"refine\" must be an object");
    take_setting(refine, "rounds", where + ": refine", s.refine_rounds);
    take_setting(refine, "scales", where + ": refine", s.refine_scales);
    take_setting(refine, "codes", where + ": refine", s.refine_codes);
}

}  // namespace detail

GPTQ_INLINE nlohmann::ordered_json settings_json(const quantize_settings& s) {
    using json = nlohmann::ordered_json;
    json object = {{"method", method_name(s.method)}, {"bits", s.bits}, {"group_size", s.group_size}, {"sym", s.sym}};
    if (s.smooth) object["smooth"] = *s.smooth;
    if (s.method != quantize_method::gptq) return object;
    object["order"] = order_name(s.order);
    object["damping"] = s.damp_percent ? json(*s.damp_percent) : json("auto");
    object["search"] = s.search;
    object["candidates"] = s.candidates;
    object["refine"] = {{"rounds", s.refine_rounds}, {"scales", s.refine_scales}, {"codes", s.refine_codes}};
    object["correct_drift"] = s.correct_drift;
    if (s.guided) object["guided"] = true;
    return object;
}

GPTQ_INLINE quantize_settings settings_from_json(const nlohmann::ordered_json& object, const std::string& where) {
    if (!object.is_object()) throw format_error(where + ": not a JSON object");
    quantize_settings s = detail::usual_settings(object, where);
    detail::take_setting(object, "bits", where, s.bits);
    detail::take_setting(object, "group_size", where, s.group_size);
    detail::take_setting(object, "sym", where, s.sym);
    detail::take_order(object, where, s.order);
    if (object.contains("damping") && object["damping"] != "auto")
        s.damp_percent = setting<double>(object, "damping", where);
    detail::take_setting(object, "search", where, s.search);
    int candidates = 1;
    detail::take_setting(object, "candidates", where, candidates);
    s.candidates = candidates < 0 ? 0 : static_cast<std::size_t>(candidates);
    detail::take_refinement(object, where, s);
    detail::take_setting(object, "correct_drift", where, s.correct_drift);
    detail::take_setting(object, "guided", where, s.guided);
    s.smooth = setting<double>(object, "smooth", where);
    try {
        s.check();
    } catch (const option_error& problem) {
        throw format_error(where + ": " + problem.what());
    }
    return s;
}

}  // namespace gptq::io
