// The bodies of <gptq/study/report.hpp>.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdio>
#include <limits>
#include <map>
#include <numeric>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include <gptq/compiled.hpp>
#include <gptq/study/chart.hpp>
#include <gptq/study/impl/json_members.hpp>
#include <gptq/study/report.hpp>
#include <gptq/study/results.hpp>

namespace gptq::study {
namespace detail {

inline constexpr const char* page_style = R"(
:root { color-scheme: light dark; --line: #8886; --mark: #8882; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 0 auto; padding: 1rem; }
h1, h2 { line-height: 1.2; } h2 { margin-top: 2.5rem; }
figure { margin: 1rem 0; } figure svg { width: 100%; min-width: 38rem; height: auto; display: block; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .875rem; font-variant-numeric: tabular-nums; }
caption { text-align: left; padding: .25rem 0; }
th, td { border-bottom: 1px solid var(--line); padding: .2rem .6rem; text-align: left; vertical-align: top; }
.n { text-align: right; }
.n, :has(+ .n) { white-space: nowrap; }
tr.front { background: var(--mark); font-weight: 600; }
summary { cursor: pointer; padding: .25rem 0; }
@media print { details > * { display: block; } body { max-width: none; } figure, tr { break-inside: avoid; } }
)";

inline std::string escape(const std::string& text) {
    std::string safe;
    for (const char c : text) {
        if (c == '&')
            safe += "&amp;";
        else if (c == '<')
            safe += "&lt;";
        else if (c == '>')
            safe += "&gt;";
        else if (c == '"')
            safe += "&quot;";
        else
            safe += c;
    }
    return safe;
}

/// Few digits, for people.
inline std::string shown_number(double value, int digits = 4) {
    if (!std::isfinite(value)) return "";
    std::string text(32, '\0');
    text.resize(static_cast<std::size_t>(std::snprintf(text.data(), text.size(), "%.*g", digits, value)));
    return text;
}

inline std::string shown_number(const std::optional<double>& value, int digits = 4) {
    return value ? shown_number(*value, digits) : std::string();
}

/// A table of a page. Its first `texts` columns hold words, the others numbers.
class html_table {
 public:
    html_table(const std::string& caption, const std::vector<std::string>& names, std::size_t texts = 1)
        : texts_(texts) {
        html_ = "<div class=\"wide\"><table><caption>" + escape(caption) + "</caption><thead><tr>";
        for (std::size_t i = 0; i < names.size(); ++i)
            html_ += "<th scope=\"col\"" + kind(i) + ">" + escape(names[i]) + "</th>";
        html_ += "</tr></thead><tbody>\n";
    }
    void add(const std::vector<std::string>& fields, bool marked = false) {
        html_ += marked ? "<tr class=\"front\">" : "<tr>";
        for (std::size_t i = 0; i < fields.size(); ++i) html_ += "<td" + kind(i) + ">" + escape(fields[i]) + "</td>";
        html_ += "</tr>\n";
    }
    std::string html() const { return html_ + "</tbody></table></div>\n"; }

 private:
    std::string kind(std::size_t column) const { return column < texts_ ? "" : " class=\"n\""; }

    std::size_t texts_;
    std::string html_;
};

/// One run of report_html.
class report_page {
 public:
    report_page(std::span<const study_row> rows, std::span<const skipped_cell> skipped, const json& study,
                const chart_drawer& draw)
        : rows_(rows), skipped_(skipped), study_(study), draw_(draw), baseline_(baseline_of(rows)) {
        for (std::size_t i = first(); i < rows.size(); ++i)
            trade_offs_.push_back({rows[i].result.bits_per_weight(), loss_of(rows[i])});
        front_ = pareto_front(trade_offs_);
    }

    std::string html() {
        std::string body = heading();
        if (baseline_ != nullptr) body += recommendations();
        body += size_section() + table_section();
        if (baseline_ != nullptr) body += cost_section("time", "seconds to quantize", seconds_of());
        if (baseline_ != nullptr) body += cost_section("memory", "peak memory in MB", megabytes_of());
        body += layer_section() + skipped_section() + machine_section();
        return "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" "
               "content=\"width=device-width, initial-scale=1\"><title>Quantization study</title><style>" +
               std::string(page_style) + "</style></head><body>\n" + body + "</body></html>\n";
    }

 private:
    std::size_t first() const { return baseline_ == nullptr ? 0 : 1; }

    /// What a cell loses: perplexity of the first text, or the mean relative error of its layers.
    double loss_of(const study_row& row) const {
        if (baseline_ != nullptr) return row.result.texts.front().result.perplexity;
        double sum = 0.0;
        for (const layer_score& l : row.result.layers) sum += l.relative_error;
        return row.result.layers.empty() ? std::numeric_limits<double>::quiet_NaN()
                                         : sum / static_cast<double>(row.result.layers.size());
    }
    std::string loss_name() const { return baseline_ != nullptr ? "perplexity" : "mean relative error of the layers"; }

    bool on_front(std::size_t row) const {
        return row >= first() && std::find(front_.begin(), front_.end(), row - first()) != front_.end();
    }

    std::string heading() const {
        const std::string model = study_.value("model", std::string());
        std::string text = "<h1>Quantization study</h1>\n<p>Model <code>" + escape(model) + "</code>, " +
                           std::to_string(rows_.size() - first()) + " settings";
        if (baseline_ == nullptr) return text + ", errors of single layers at the inputs of the float model.</p>\n";
        text += ". The float model has ";
        for (std::size_t i = 0; i < baseline_->texts.size(); ++i) {
            const text_score& t = baseline_->texts[i];
            text += std::string(i == 0 ? "" : "; ") + "perplexity " + shown_number(t.result.perplexity, 6) + " on " +
                    escape(t.name) + " (" + std::to_string(t.result.tokens) + " tokens in " +
                    std::to_string(t.result.windows) + " windows)";
        }
        return text + ".</p>\n";
    }

    std::string choice_text(const std::optional<std::size_t>& row) const {
        if (!row) return "no setting of this study";
        const cell_result& r = rows_[*row].result;
        return label_of(rows_[*row].cell) + ": " + shown_number(r.bits_per_weight()) + " bits, " +
               shown_number(100.0 * relative_increase(r, *baseline_), 3) + " % above float";
    }

    std::string recommendations() const {
        html_table table("What to choose. Increases are geometric means over the texts.", {"wish", "setting"}, 2);
        for (const double percent : {1.0, 2.0, 5.0, 10.0, 25.0})
            table.add({"no more than " + shown_number(percent) + " % above float",
                       choice_text(smallest_within(rows_, percent / 100.0))});
        for (const double bits : {2.5, 3.0, 3.5, 4.0, 4.5, 5.0, 8.5})
            table.add({"no more than " + shown_number(bits) + " bits a weight", choice_text(best_within(rows_, bits))});
        return "<h2>Recommended settings</h2>\n" + table.html();
    }

    /// The cells of each method, with x and y of each.
    std::vector<chart_series> by_method(const std::vector<double>& x) const {
        std::vector<chart_series> series;
        for (std::size_t i = first(); i < rows_.size(); ++i) {
            const std::string& method = rows_[i].cell.method;
            auto found = std::find_if(series.begin(), series.end(), [&](const auto& s) { return s.name == method; });
            if (found == series.end()) found = series.insert(series.end(), chart_series{method, {}, {}});
            found->x.push_back(x[i - first()]);
            found->y.push_back(trade_offs_[i - first()].loss);
        }
        return series;
    }

    /// A front as a line with names.
    void add_front(scatter_chart& chart, const std::vector<std::size_t>& front, const std::vector<double>& x) const {
        chart.front.name = "best of their size or less";
        for (const std::size_t i : front) {
            chart.front.x.push_back(x[i]);
            chart.front.y.push_back(trade_offs_[i].loss);
            chart.labels.push_back(label_of(rows_[i + first()].cell));
        }
    }

    /// The float model's line, and no more room than the best settings take: the worst would flatten the others.
    void add_float(scatter_chart& chart) const {
        if (baseline_ == nullptr) return;
        chart.level = baseline_->texts.front().result.perplexity;
        chart.level_name = "float";
        chart.log_y = false;
        double worst = 0.0;
        for (const std::size_t i : front_) worst = std::max(worst, trade_offs_[i].loss);
        chart.most_y = *chart.level + 1.6 * std::max(worst - *chart.level, 0.02 * *chart.level);
    }

    std::string figure(const std::string& script, const std::string& what) {
        if (script.empty()) return "";
        const auto svg = draw_ ? draw_(script) : std::nullopt;
        if (!svg) return missing_chart();
        const std::string id = "c" + std::to_string(++charts_);
        return "<figure><div class=\"wide\">" + inline_svg(*svg, id, escape(what)) + "</div><figcaption>" +
               escape(what) + "</figcaption></figure>\n";
    }

    /// Said once.
    std::string missing_chart() {
        if (std::exchange(said_missing_, true)) return "";
        return "<p>Charts are drawn by gnuplot, which was not found: install it (Debian: gnuplot-nox) and run the same "
               "command again; nothing is computed twice.</p>\n";
    }

    std::string size_section() {
        std::vector<double> bits;
        for (const trade_off& t : trade_offs_) bits.push_back(t.cost);
        scatter_chart chart{.x_title = "bits a weight, with scales, zero points and g_idx", .y_title = loss_name()};
        chart.log_y = spread();
        chart.series = by_method(bits);
        add_front(chart, front_, bits);
        add_float(chart);
        return "<h2>" + std::string(baseline_ != nullptr ? "Perplexity" : "Error") + " against bits</h2>\n" +
               figure(chart_script(chart),
                      loss_name() +
                          " against bits a weight; the line joins the settings that no other beats in both. "
                          "Settings far worse than these are in the table "
                          "below alone, which has all numbers.");
    }

    /// Whether the losses differ so much that a logarithm shows more.
    bool spread() const {
        double least = std::numeric_limits<double>::infinity(), most = 0.0;
        for (const trade_off& t : trade_offs_)
            if (std::isfinite(t.loss)) least = std::min(least, t.loss), most = std::max(most, t.loss);
        return least > 0.0 && most > 3.0 * least;
    }

    std::string table_section() const {
        std::vector<std::string> names = {"setting", "best of its size", "bits a weight", "bits, whole model", "MB"};
        if (baseline_ != nullptr)
            for (const text_score& t : baseline_->texts)
                for (const char* what : {"perplexity", "standard error", "above float", "paired error"})
                    names.push_back(std::string(what) + " (" + t.name + ")");
        names.insert(names.end(), {"layer error", "mean relative error", "seconds"});
        html_table table("All settings, by size. An increase that is not some paired errors large is noise.", names);
        std::vector<std::size_t> order(rows_.size());
        std::iota(order.begin(), order.end(), std::size_t{0});
        std::stable_sort(order.begin(), order.end(), [this](std::size_t a, std::size_t b) {
            return rows_[a].result.bits_per_weight() < rows_[b].result.bits_per_weight();
        });
        for (const std::size_t i : order) table.add(fields_of(i), on_front(i));
        return "<h2>All settings</h2>\n" + table.html();
    }

    std::vector<std::string> fields_of(std::size_t i) const {
        const cell_result& r = rows_[i].result;
        std::vector<std::string> fields = {label_of(rows_[i].cell), on_front(i) ? "yes" : "",
                                           shown_number(r.bits_per_weight()), shown_number(r.model_bits_per_weight()),
                                           shown_number(static_cast<double>(r.bytes) / 1e6)};
        if (baseline_ != nullptr)
            for (std::size_t t = 0; t < r.texts.size(); ++t) {
                const auto& result = r.texts[t].result;
                const paired_difference d = difference_of(result, baseline_->texts[t].result);
                fields.insert(fields.end(), {shown_number(result.perplexity, 6), shown_number(result.standard_error, 2),
                                             i < first() ? "" : shown_number(d.difference),
                                             i < first() ? "" : shown_number(d.standard_error, 2)});
            }
        double sum = 0.0;
        for (const layer_score& l : r.layers) sum += l.relative_error;
        const bool quantized = i >= first() && !r.layers.empty();
        fields.insert(fields.end(), {quantized ? shown_number(r.error()) : "",
                                     quantized ? shown_number(sum / static_cast<double>(r.layers.size()), 3) : "",
                                     shown_number(r.quantize_seconds, 3)});
        return fields;
    }

    std::vector<double> seconds_of() const {
        std::vector<double> x;
        for (std::size_t i = first(); i < rows_.size(); ++i)
            x.push_back(rows_[i].result.quantize_seconds.value_or(std::numeric_limits<double>::quiet_NaN()));
        return x;
    }
    std::vector<double> megabytes_of() const {
        std::vector<double> x;
        for (std::size_t i = first(); i < rows_.size(); ++i)
            x.push_back(rows_[i].result.peak_bytes ? static_cast<double>(*rows_[i].result.peak_bytes) / 1e6
                                                   : std::numeric_limits<double>::quiet_NaN());
        return x;
    }

    /// Perplexity against what a setting costs to make.
    std::string cost_section(const std::string& name, const std::string& title, const std::vector<double>& x) {
        if (std::none_of(x.begin(), x.end(), [](double value) { return std::isfinite(value); })) return "";
        std::vector<trade_off> points;
        html_table table(title, {"setting", title, loss_name()});
        for (std::size_t i = 0; i < x.size(); ++i) {
            points.push_back({x[i], trade_offs_[i].loss});
            table.add({label_of(rows_[i + first()].cell), shown_number(x[i]), shown_number(trade_offs_[i].loss, 6)});
        }
        scatter_chart chart{.x_title = title, .y_title = loss_name()};
        chart.log_y = spread();
        chart.series = by_method(x);
        add_front(chart, pareto_front(points), x);
        chart.front.name = "best for their " + name + " or less";
        add_float(chart);
        return "<h2>Perplexity against " + name + "</h2>\n" +
               figure(chart_script(chart), loss_name() + " against " + title + ", measured in this study.") +
               "<details><summary>The numbers</summary>" + table.html() + "</details>\n";
    }

    /// Experts, which can be hundreds, are one line.
    static std::string without_digits(const std::string& module) {
        std::string text;
        for (const char c : module) {
            const bool digit = c >= '0' && c <= '9';
            if (!digit)
                text += c;
            else if (text.ends_with('.'))
                text += '*';
            else if (!text.ends_with('*'))
                text += c;
        }
        return text;
    }

    std::string layer_section() {
        std::string text =
            "<h2>Errors of layers</h2>\n<p>The part of the outputs' energy that is wrong, tr(D H D') / "
            "tr(W H W'), on the calibration text.</p>\n";
        for (std::size_t i = first(); i < rows_.size(); ++i) text += layers_of(i, i == first());
        return text;
    }

    std::string layers_of(std::size_t row, bool open) {
        heat_map map{.x_title = "block", .value_title = "log10 of the relative error"};
        std::map<std::string, std::size_t> row_of;
        std::map<std::pair<std::size_t, std::size_t>, std::pair<double, std::size_t>> sums;
        std::size_t blocks = 0;
        for (const layer_score& l : rows_[row].result.layers) {
            const std::string name = without_digits(l.module);
            const auto [found, added] = row_of.emplace(name, map.rows.size());
            if (added) map.rows.push_back(name);
            auto& [sum, count] = sums[{found->second, l.layer}];
            sum += l.relative_error;
            ++count;
            blocks = std::max(blocks, l.layer + 1);
        }
        map.values.assign(map.rows.size(), std::vector<double>(blocks, std::numeric_limits<double>::quiet_NaN()));
        std::vector<std::string> names = {"module"};
        for (std::size_t b = 0; b < blocks; ++b) names.push_back(std::to_string(b));
        html_table table("Relative errors by block", names);
        for (std::size_t m = 0; m < map.rows.size(); ++m) {
            std::vector<std::string> fields = {map.rows[m]};
            for (std::size_t b = 0; b < blocks; ++b) {
                const auto found = sums.find({m, b});
                const double mean = found == sums.end()
                                        ? std::numeric_limits<double>::quiet_NaN()
                                        : found->second.first / static_cast<double>(found->second.second);
                if (mean > 0.0) map.values[m][b] = std::log10(mean);
                fields.push_back(shown_number(mean, 2));
            }
            table.add(fields);
        }
        const std::string label = label_of(rows_[row].cell);
        return std::string("<details") + (open ? " open" : "") + "><summary>" + escape(label) + "</summary>" +
               figure(chart_script(map), "Relative errors of the layers with " + label + ", brighter is worse.") +
               table.html() + "</details>\n";
    }

    std::string skipped_section() const {
        if (skipped_.empty()) return "";
        html_table table("Settings that were left out", {"settings", "reason"}, 2);
        for (const auto& [reason, labels] : by_reason(skipped_)) table.add({labels, reason});
        return "<h2>Left out</h2>\n" + table.html();
    }

    std::string machine_section() const {
        html_table table("What computed it", {"", "value"}, 2);
        table.add({"gptq", study_.value("version", std::string())});
        if (!rows_.empty())
            for (const auto& [key, value] : rows_.back().result.machine.items())
                table.add({key, value.is_string() ? value.get<std::string>() : value.dump()});
        return "<h2>Machine</h2>\n" + table.html();
    }

    std::span<const study_row> rows_;
    std::span<const skipped_cell> skipped_;
    const json& study_;
    const chart_drawer& draw_;
    const cell_result* baseline_;
    std::vector<trade_off> trade_offs_;  // of the rows that are quantized
    std::vector<std::size_t> front_;     // of these
    std::size_t charts_ = 0;
    bool said_missing_ = false;
};

}  // namespace detail

GPTQ_INLINE std::string report_html(std::span<const study_row> rows, std::span<const skipped_cell> skipped,
                                    const nlohmann::ordered_json& study, const chart_drawer& draw) {
    return detail::report_page(rows, skipped, study, draw).html();
}

}  // namespace gptq::study
