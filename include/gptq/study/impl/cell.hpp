// The bodies of <gptq/study/cell.hpp>.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>

#include <nlohmann/json.hpp>

#include <gptq/compiled.hpp>
#include <gptq/error.hpp>
#include <gptq/io/json.hpp>
#include <gptq/io/settings_json.hpp>
#include <gptq/study/cell.hpp>
#include <gptq/study/impl/json_members.hpp>

namespace gptq::study {
namespace detail {

inline json text_json(const text_score& text) {
    const model::perplexity_result& r = text.result;
    json windows = json::array();
    for (const model::window_score& w : r.scores) windows.push_back({w.nll, w.tokens});
    return {{"name", text.name}, {"seconds", r.seconds}, {"windows", windows}};
}

/// The sums of windows decide all else.
inline text_score text_from_json(const json& object, const std::string& where) {
    model::detail::nll_sums sums;
    for (const json& w : list_member(object, "windows", where)) {
        if (!w.is_array() || w.size() != 2 || !w[0].is_number() || !w[1].is_number_unsigned() || w[1] == 0)
            throw format_error(where + ": a window is no [nll, tokens]");
        sums.add(w[0].get<double>(), w[1].get<std::size_t>());
    }
    text_score text{member<std::string>(object, "name", where), sums.result()};
    text.result.seconds = member<double>(object, "seconds", where);
    if (text.result.windows == 0) throw format_error(where + ": a text without windows");
    return text;
}

inline json layer_json(const layer_score& l) {
    return {{"layer", l.layer}, {"module", l.module},  {"error", l.error}, {"relative_error", l.relative_error},
            {"bytes", l.bytes}, {"weights", l.weights}};
}

inline layer_score layer_from_json(const json& object, const std::string& where) {
    return {static_cast<std::size_t>(count_member(object, "layer", where)),
            member<std::string>(object, "module", where),
            member<double>(object, "error", where),
            member<double>(object, "relative_error", where),
            count_member(object, "bytes", where),
            count_member(object, "weights", where)};
}

}  // namespace detail

GPTQ_INLINE io::checkpoint_format usual_format(const quantize_settings& settings) {
    return settings.sym ? io::checkpoint_format::gptq : io::checkpoint_format::gptq_v2;
}

GPTQ_INLINE std::string label_of(const study_cell& cell) {
    if (cell.method == float_method) return float_method;
    const quantize_settings& s = cell.settings;
    std::string label = cell.method + " " + std::to_string(s.bits) + " bits " +
                        (s.group_size == per_channel ? "channel" : "g" + std::to_string(s.group_size)) +
                        (s.sym ? " sym" : " asym");
    if (s.method == quantize_method::gptq) label += " " + order_name(s.order);
    return label;
}

GPTQ_INLINE nlohmann::ordered_json cell_json(const study_cell& cell) {
    if (cell.method == float_method) return {{"method", float_method}};
    return {{"method", cell.method},
            {"format", io::format_name(cell.format)},
            {"settings", io::settings_json(cell.settings)}};
}

GPTQ_INLINE study_cell cell_from_json(const nlohmann::ordered_json& object, const std::string& where) {
    if (!object.is_object()) throw format_error(where + ": not a JSON object");
    study_cell cell{.method = detail::member<std::string>(object, "method", where)};
    if (cell.method == float_method) return cell;
    const auto format = io::format_of_name(detail::member<std::string>(object, "format", where));
    if (!format || !object.contains("settings")) throw format_error(where + ": no format or no settings");
    cell.format = *format;
    cell.settings = io::settings_from_json(object["settings"], where + ": settings");
    return cell;
}

GPTQ_INLINE std::uint64_t cell_result::quantized_bytes() const {
    std::uint64_t sum = 0;
    for (const layer_score& l : layers) sum += l.bytes;
    return sum;
}

GPTQ_INLINE std::uint64_t cell_result::quantized_weights() const {
    std::uint64_t sum = 0;
    for (const layer_score& l : layers) sum += l.weights;
    return sum;
}

GPTQ_INLINE double cell_result::bits_per_weight() const {
    return layers.empty() ? 0.0
                          : 8.0 * static_cast<double>(quantized_bytes()) / static_cast<double>(quantized_weights());
}

GPTQ_INLINE double cell_result::model_bits_per_weight() const {
    return weights == 0 ? 0.0 : 8.0 * static_cast<double>(bytes) / static_cast<double>(weights);
}

GPTQ_INLINE double cell_result::error() const {
    double sum = 0.0;
    for (const layer_score& l : layers) sum += l.error;
    return sum;
}

GPTQ_INLINE nlohmann::ordered_json result_json(const cell_result& r) {
    using detail::json;
    json texts = json::array(), layers = json::array();
    for (const text_score& text : r.texts) texts.push_back(detail::text_json(text));
    for (const layer_score& layer : r.layers) layers.push_back(detail::layer_json(layer));
    return {{"texts", texts},
            {"layers", layers},
            {"bytes", r.bytes},
            {"weights", r.weights},
            {"warnings", r.warnings},
            {"quantize_seconds", detail::optional_json(r.quantize_seconds)},
            {"evaluate_seconds", detail::optional_json(r.evaluate_seconds)},
            {"peak_bytes", detail::optional_json(r.peak_bytes)},
            {"machine", r.machine}};
}

GPTQ_INLINE cell_result result_from_json(const nlohmann::ordered_json& object, const std::string& where) {
    if (!object.is_object()) throw format_error(where + ": not a JSON object");
    cell_result r;
    for (const auto& text : detail::list_member(object, "texts", where))
        r.texts.push_back(detail::text_from_json(text, where + ": texts"));
    for (const auto& layer : detail::list_member(object, "layers", where))
        r.layers.push_back(detail::layer_from_json(layer, where + ": layers"));
    r.bytes = detail::count_member(object, "bytes", where);
    r.weights = detail::count_member(object, "weights", where);
    for (const auto& warning : detail::list_member(object, "warnings", where))
        if (warning.is_string()) r.warnings.push_back(warning.get<std::string>());
    r.quantize_seconds = io::setting<double>(object, "quantize_seconds", where);
    r.evaluate_seconds = io::setting<double>(object, "evaluate_seconds", where);
    if (object.contains("peak_bytes") && !object["peak_bytes"].is_null())
        r.peak_bytes = detail::count_member(object, "peak_bytes", where);
    if (object.contains("machine")) r.machine = object["machine"];
    return r;
}

}  // namespace gptq::study
