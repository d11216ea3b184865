// The bodies of <gptq/study/results.hpp>.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <numeric>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include <gptq/compiled.hpp>
#include <gptq/error.hpp>
#include <gptq/io/quantization_config.hpp>
#include <gptq/model/perplexity.hpp>
#include <gptq/model/quantize_log.hpp>
#include <gptq/study/impl/json_members.hpp>
#include <gptq/study/results.hpp>

namespace gptq::study {

GPTQ_INLINE const cell_result* baseline_of(std::span<const study_row> rows) {
    return !rows.empty() && rows[0].cell.method == float_method ? &rows[0].result : nullptr;
}

GPTQ_INLINE paired_difference difference_of(const model::perplexity_result& cell,
                                            const model::perplexity_result& baseline) {
    if (cell.scores.size() != baseline.scores.size() || cell.tokens != baseline.tokens)
        throw shape_error("a study compares " + std::to_string(cell.scores.size()) + " windows with " +
                          std::to_string(baseline.scores.size()) + "; score the same text");
    paired_difference found{cell.perplexity - baseline.perplexity};
    const auto windows = static_cast<double>(cell.scores.size());
    if (cell.scores.size() < 2) return found;
    double squares = 0.0;
    for (std::size_t w = 0; w < cell.scores.size(); ++w) {
        const auto part = [w](const model::perplexity_result& r) {
            return r.perplexity * (r.scores[w].nll - r.nll * static_cast<double>(r.scores[w].tokens));
        };
        squares += std::pow(part(cell) - part(baseline), 2.0);
    }
    found.standard_error = std::sqrt(windows / (windows - 1.0) * squares) / static_cast<double>(cell.tokens);
    return found;
}

GPTQ_INLINE double relative_increase(const cell_result& cell, const cell_result& baseline) {
    if (cell.texts.size() != baseline.texts.size() || cell.texts.empty())
        throw shape_error("a study compares " + std::to_string(cell.texts.size()) + " texts with " +
                          std::to_string(baseline.texts.size()));
    double sum = 0.0;
    for (std::size_t i = 0; i < cell.texts.size(); ++i) sum += cell.texts[i].result.nll - baseline.texts[i].result.nll;
    return std::expm1(sum / static_cast<double>(cell.texts.size()));
}

GPTQ_INLINE std::vector<std::size_t> pareto_front(std::span<const trade_off> points) {
    std::vector<std::size_t> order;
    for (std::size_t i = 0; i < points.size(); ++i)
        if (std::isfinite(points[i].cost) && std::isfinite(points[i].loss)) order.push_back(i);
    std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
        return std::pair(points[a].cost, points[a].loss) < std::pair(points[b].cost, points[b].loss);
    });
    std::vector<std::size_t> front;
    double least = std::numeric_limits<double>::infinity();
    for (const std::size_t i : order)
        if (points[i].loss < least) front.push_back(i), least = points[i].loss;
    return front;
}

namespace detail {

/// The row other than the float model's with the least better(row), of those that `fits`.
template <class Fits, class Better>
std::optional<std::size_t> choose_row(std::span<const study_row> rows, const Fits& fits, const Better& better) {
    std::optional<std::size_t> chosen;
    for (std::size_t i = 1; i < rows.size(); ++i)
        if (fits(rows[i]) && (!chosen || better(rows[i]) < better(rows[*chosen]))) chosen = i;
    return chosen;
}

/// A field of CSV.
inline std::string csv_field(const std::string& text) {
    if (text.find_first_of(",\"\n\r") == std::string::npos) return text;
    std::string quoted = "\"";
    for (const char c : text) quoted += c == '"' ? std::string("\"\"") : std::string(1, c);
    return quoted + "\"";
}

inline std::string csv_value(const json& value) {
    if (value.is_null()) return "";
    if (value.is_string()) return csv_field(value.get<std::string>());
    return value.is_number_float() ? model::detail::number_string(value.get<double>()) : csv_field(value.dump());
}

inline void add_settings(json& row, const study_cell& cell) {
    row["label"] = label_of(cell);
    row["method"] = cell.method;
    const bool quantized = cell.method != float_method, solved = cell.settings.method == quantize_method::gptq;
    const quantize_settings& s = cell.settings;
    const auto put = [&](const char* key, bool there, const auto& value) {
        row[key] = there ? json(value) : json(nullptr);
    };
    put("bits", quantized, s.bits);
    put("group_size", quantized, s.group_size);
    put("grid", quantized, s.sym ? "sym" : "asym");
    put("format", quantized, io::format_name(cell.format));
    put("order", quantized && solved, order_name(s.order));
    put("damping", quantized && solved, s.damp_percent ? json(*s.damp_percent) : json("auto"));
    put("search", quantized && solved, s.search);
    put("candidates", quantized && solved, s.candidates);
    put("refine_rounds", quantized && solved, s.refine_rounds);
    put("correct_drift", quantized && solved, s.correct_drift);
    put("guided", quantized && solved, s.guided);
    put("smooth", quantized && s.smooth, s.smooth.value_or(0.0));
}

inline void add_sizes(json& row, const cell_result& result) {
    row["bits_per_weight"] = result.bits_per_weight();
    row["model_bits_per_weight"] = result.model_bits_per_weight();
    row["quantized_bytes"] = result.quantized_bytes();
    row["bytes"] = result.bytes;
    row["layer_error"] = result.error();
}

inline void add_texts(json& row, const cell_result& result, const cell_result* baseline) {
    for (std::size_t i = 0; i < result.texts.size(); ++i) {
        const text_score& text = result.texts[i];
        const auto put = [&](const char* what, const auto& value) {
            row[std::string(what) + "[" + text.name + "]"] = optional_json(value);
        };
        put("perplexity", std::optional(text.result.perplexity));
        put("standard_error", text.result.standard_error);
        if (baseline == nullptr) continue;
        const paired_difference d = difference_of(text.result, baseline->texts.at(i).result);
        put("difference", std::optional(d.difference));
        put("paired_error", d.standard_error);
    }
}

/// What both files have of a row. `baseline` is null at depth layers.
inline json row_json(const study_row& row, const cell_result* baseline) {
    json object;
    add_settings(object, row.cell);
    add_sizes(object, row.result);
    add_texts(object, row.result, baseline);
    for (const auto& [key, value] : row.result.machine.items()) object[key] = value;
    object["quantize_seconds"] = optional_json(row.result.quantize_seconds);
    object["evaluate_seconds"] = optional_json(row.result.evaluate_seconds);
    object["peak_bytes"] = optional_json(row.result.peak_bytes);
    return object;
}

}  // namespace detail

GPTQ_INLINE std::optional<std::size_t> smallest_within(std::span<const study_row> rows, double most) {
    const cell_result& baseline = rows[0].result;
    return detail::choose_row(
        rows, [&](const study_row& row) { return relative_increase(row.result, baseline) <= most; },
        [&](const study_row& row) {
            return std::pair(row.result.bits_per_weight(), relative_increase(row.result, baseline));
        });
}

GPTQ_INLINE std::optional<std::size_t> best_within(std::span<const study_row> rows, double bits) {
    const cell_result& baseline = rows[0].result;
    return detail::choose_row(
        rows, [&](const study_row& row) { return row.result.bits_per_weight() <= bits; },
        [&](const study_row& row) { return relative_increase(row.result, baseline); });
}

GPTQ_INLINE std::string results_csv(std::span<const study_row> rows) {
    const cell_result* baseline = baseline_of(rows);
    std::string csv;
    for (const study_row& row : rows) {
        const nlohmann::ordered_json object = detail::row_json(row, baseline);
        std::string names, values;
        for (const auto& [key, value] : object.items()) {
            names += (names.empty() ? "" : ",") + detail::csv_field(key);
            values += (values.empty() ? "" : ",") + detail::csv_value(value);
        }
        if (csv.empty()) csv = names + "\n";
        csv += values + "\n";
    }
    return csv;
}

GPTQ_INLINE nlohmann::ordered_json results_json(std::span<const study_row> rows, std::span<const skipped_cell> skipped,
                                                const nlohmann::ordered_json& study) {
    using json = nlohmann::ordered_json;
    const cell_result* baseline = baseline_of(rows);
    json cells = json::array(), left_out = json::array();
    for (const study_row& row : rows) {
        cells.push_back(detail::row_json(row, baseline));
        cells.back()["warnings"] = row.result.warnings;
        cells.back()["layers"] = result_json(row.result)["layers"];
    }
    for (const skipped_cell& cell : skipped) left_out.push_back({{"cell", cell.label}, {"reason", cell.reason}});
    return {{"study", study}, {"cells", cells}, {"skipped", left_out}};
}

}  // namespace gptq::study
