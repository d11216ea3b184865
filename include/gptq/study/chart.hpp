// Charts as scripts for gnuplot, and its SVG made fit for a page that is light or dark.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

namespace gptq::study {

/// Runs gnuplot with a script that prints SVG, and returns what it prints; nothing where there is no gnuplot. The
/// library itself starts no program.
using chart_drawer = std::function<std::optional<std::string>(const std::string& script)>;

/// Points of one kind, which share a mark.
struct chart_series {
    std::string name;
    std::vector<double> x = {}, y = {};
};

/// Points, and a line through some of them that have names.
struct scatter_chart {
    std::string x_title, y_title;
    bool log_y = false;
    std::vector<chart_series> series = {};
    chart_series front = {};                     ///< by rising x
    std::vector<std::string> labels = {};        ///< of the front's points
    std::optional<double> level = std::nullopt;  ///< a line across
    std::string level_name = {};
    std::optional<double> most_y = std::nullopt;  ///< points above are left out
};

/// Numbers by row and column; NaN leaves a place empty.
struct heat_map {
    std::string x_title, value_title;
    std::vector<std::string> rows = {};            ///< names, the first at the top
    std::vector<std::vector<double>> values = {};  ///< [rows][columns]
};

/// The scripts. Names are reduced to letters, digits and a few signs, so that they mean nothing to gnuplot.
std::string chart_script(const scatter_chart& chart);
std::string chart_script(const heat_map& map);

/// gnuplot's SVG as an element of a page: its black becomes the color of the text, its names begin with `id`, and
/// screen readers say `what`.
std::string inline_svg(const std::string& svg, const std::string& id, const std::string& what);

}  // namespace gptq::study

#ifndef GPTQ_COMPILED
#include <gptq/study/impl/chart.hpp>
#endif
