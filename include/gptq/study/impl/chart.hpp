// The bodies of <gptq/study/chart.hpp>.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <string>
#include <string_view>
#include <vector>

#include <gptq/compiled.hpp>
#include <gptq/model/quantize_log.hpp>
#include <gptq/study/chart.hpp>

namespace gptq::study {
namespace detail {

/// Shapes tell series apart, colors only help. They are seen on white and on black.
inline constexpr const char* marks[] = {"pt 5 lc rgb '#4477aa'", "pt 7 lc rgb '#ee6677'", "pt 9 lc rgb '#228833'",
                                        "pt 11 lc rgb '#aa7700'", "pt 13 lc rgb '#aa3377'"};

inline std::string harmless(const std::string& name) {
    std::string text = name;
    for (char& c : text) {
        const bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
        if (!plain && std::string_view(" .,()-+*:").find(c) == std::string_view::npos) c = '_';
    }
    return text;
}

inline std::string number(double value) {
    return std::isfinite(value) ? model::detail::number_string(value) : std::string("NaN");
}

inline std::string points(const std::string& name, const chart_series& series, const std::vector<std::string>& labels) {
    std::string text = "$" + name + " << EOD\n";
    for (std::size_t i = 0; i < series.x.size(); ++i)
        text += number(series.x[i]) + "\t" + number(series.y[i]) +
                (i < labels.size() ? "\t" + harmless(labels[i]) : std::string()) + "\n";
    return text + "EOD\n";
}

/// The front's labels without those that would lie on the one before.
inline std::vector<std::string> spaced_labels(const scatter_chart& chart) {
    double least = std::numeric_limits<double>::infinity(), most = -least;
    for (const chart_series& series : chart.series)
        for (const double x : series.x)
            if (std::isfinite(x)) least = std::min(least, x), most = std::max(most, x);
    std::vector<std::string> labels = chart.labels;
    double last = -std::numeric_limits<double>::infinity();
    for (std::size_t i = 0; i < labels.size(); ++i) {
        const double x = chart.front.x[i];
        if (x - last < 0.045 * (most - least))
            labels[i].clear();
        else
            last = x;
    }
    return labels;
}

inline std::string beginning(int height) {
    return "set terminal svg size 860," + std::to_string(height) +
           " dynamic noenhanced font 'sans-serif,13'\nset datafile separator \"\\t\"\nset encoding utf8\n";
}

inline void replace_all(std::string& text, std::string_view from, const std::string& to) {
    for (std::size_t at = text.find(from); at != std::string::npos; at = text.find(from, at + to.size()))
        text.replace(at, from.size(), to);
}

}  // namespace detail

GPTQ_INLINE std::string chart_script(const scatter_chart& chart) {
    std::string script = detail::beginning(480), plots;
    script +=
        "set xlabel '" + detail::harmless(chart.x_title) + "'\nset ylabel '" + detail::harmless(chart.y_title) + "'\n";
    script += "set grid\nset key top right\nset offsets graph 0.05, graph 0.14, graph 0.08, graph 0.05\n";
    if (chart.log_y) script += "set logscale y\n";
    for (std::size_t i = 0; i < chart.series.size(); ++i) {
        if (chart.series[i].x.empty()) continue;
        const std::string name = "s" + std::to_string(i);
        script += detail::points(name, chart.series[i], {});
        plots += std::string(plots.empty() ? "" : ", ") + "$" + name + " using 1:2 with points " +
                 detail::marks[i % std::size(detail::marks)] + " ps 0.9 title '" +
                 detail::harmless(chart.series[i].name) + "'";
    }
    if (plots.empty()) return "";
    if (chart.most_y) script += "set yrange [*:" + detail::number(*chart.most_y) + "]\n";
    if (chart.level)
        plots += ", " + detail::number(*chart.level) + " with lines dt 3 lc rgb '#888888' title '" +
                 detail::harmless(chart.level_name) + "'";
    if (!chart.front.x.empty()) {
        script += detail::points("front", chart.front, detail::spaced_labels(chart));
        plots += ", $front using 1:2 with lines dt 2 lw 1.5 lc rgb '#888888' title '" +
                 detail::harmless(chart.front.name) +
                 "', $front using 1:2:3 with labels left rotate by 30 offset 0.6,0.5 font ',10' notitle";
    }
    return script + "plot " + plots + "\n";
}

GPTQ_INLINE std::string chart_script(const heat_map& map) {
    if (map.rows.empty() || map.values.front().empty()) return "";
    const std::size_t rows = map.rows.size(), columns = map.values.front().size();
    std::string script = detail::beginning(static_cast<int>(120 + 26 * rows));
    script += "$m << EOD\n";
    for (std::size_t r = 0; r < rows; ++r)
        for (std::size_t c = 0; c < columns; ++c)
            script += std::to_string(c) + "\t" + std::to_string(r) + "\t" + detail::number(map.values[r][c]) + "\n";
    script += "EOD\nset ytics (";
    for (std::size_t r = 0; r < rows; ++r)
        script += std::string(r == 0 ? "" : ", ") + "'" + detail::harmless(map.rows[r]) + "' " + std::to_string(r);
    script += ") nomirror scale 0\nset xtics nomirror scale 0\n";
    script +=
        "set xrange [-0.5:" + std::to_string(columns) + "-0.5]\nset yrange [" + std::to_string(rows) + "-0.5:-0.5]\n";
    script += "set xlabel '" + detail::harmless(map.x_title) + "'\nset cblabel '" + detail::harmless(map.value_title) +
              "'\nset format cb '%.2g'\n";
    // Lightness rises with the value, so that a print in grey says the same.
    script += "set palette defined (0 '#440154', 1 '#3b528b', 2 '#21918c', 3 '#5ec962', 4 '#fde725')\nunset key\n";
    return script + "plot $m using 1:2:3 with image pixels\n";
}

GPTQ_INLINE std::string inline_svg(const std::string& svg, const std::string& id, const std::string& what) {
    const std::size_t begin = svg.find("<svg");
    if (begin == std::string::npos) return "";
    std::string text = svg.substr(begin);
    detail::replace_all(text, "color=\"black\"", "");
    for (const char quote : {'"', '\''})
        for (const char* where : {"stroke", "fill"})
            detail::replace_all(text, std::string(where) + "=" + quote + "black" + quote,
                                std::string(where) + "=" + quote + "currentColor" + quote);
    for (const char* name : {"gpDot", "gpPt", "gnuplot_", "textbox", "greybox"}) {
        detail::replace_all(text, std::string("'") + name, "'" + id + name);
        detail::replace_all(text, std::string("\"") + name, "\"" + id + name);
        detail::replace_all(text, std::string("#") + name, "#" + id + name);
    }
    detail::replace_all(text, "<title>Gnuplot</title>", "");
    return text.insert(4, " role=\"img\" aria-label=\"" + what + "\"");
}

}  // namespace gptq::study
