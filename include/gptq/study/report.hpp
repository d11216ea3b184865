// report.html: a study on one page, which opens without a network.
#pragma once

#include <span>
#include <string>

#include <nlohmann/json.hpp>

#include <gptq/study/chart.hpp>
#include <gptq/study/plan.hpp>
#include <gptq/study/run_study.hpp>

namespace gptq::study {

/// The page: what to choose, perplexity against bits and time where it was measured, layer errors against bits where it
/// was not, the errors of all layers, and a table behind every chart. Without a drawer, or where it draws nothing, the
/// page has the tables alone and says how to get charts.
std::string report_html(std::span<const study_row> rows, std::span<const skipped_cell> skipped,
                        const nlohmann::ordered_json& study, const chart_drawer& draw);

}  // namespace gptq::study

#ifndef GPTQ_COMPILED
#include <gptq/study/impl/report.hpp>
#endif
