// What a study found: differences to the float model, the front of the best, and the files that keep it all.
#pragma once

#include <cstddef>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include <gptq/model/perplexity.hpp>
#include <gptq/study/plan.hpp>
#include <gptq/study/run_study.hpp>

namespace gptq::study {

/// The float model's result, which is the first row at depth model; null at depth layers.
const cell_result* baseline_of(std::span<const study_row> rows);

/// How far a perplexity is from the float model's on the same windows.
struct paired_difference {
    double difference = 0.0;  ///< of the perplexities
    /// From how windows differ in both at once, so that what makes a window hard for both counts for nothing: with
    /// r = p (s - nll n) for a window's sum s over n tokens and a perplexity p, r of the float model subtracted,
    /// sqrt(W / (W - 1) sum r^2) / tokens. Nothing for fewer than two windows.
    std::optional<double> standard_error = std::nullopt;
};

/// Throws shape_error where the windows differ.
paired_difference difference_of(const model::perplexity_result& cell, const model::perplexity_result& baseline);

/// The geometric mean over the texts of a cell's perplexity over the float model's, less 1. Throws shape_error where
/// the texts differ, or there is none.
double relative_increase(const cell_result& cell, const cell_result& baseline);

/// What a choice costs and what it loses, both better if smaller.
struct trade_off {
    double cost = 0.0, loss = 0.0;
};

/// The points that no other one beats: none costs less or as much, and loses less or as much, and one of both less. Of
/// equal ones the first. By rising cost. Points that are not finite are none of them.
std::vector<std::size_t> pareto_front(std::span<const trade_off> points);

/// The row of least bits whose relative_increase is at most `most`; nothing if there is none. rows[0] is the float
/// model's, and is not chosen.
std::optional<std::size_t> smallest_within(std::span<const study_row> rows, double most);

/// The row with the least relative_increase of those with at most `bits` per weight, likewise.
std::optional<std::size_t> best_within(std::span<const study_row> rows, double bits);

/// results.csv: one row a cell, with a line of column names. Columns of a text carry its name in brackets. All but the
/// last three, the seconds and the memory, are the same however often the study was interrupted.
std::string results_csv(std::span<const study_row> rows);

/// results.json: the same, with the layers of each cell, the cells that were left out, and the study itself.
nlohmann::ordered_json results_json(std::span<const study_row> rows, std::span<const skipped_cell> skipped,
                                    const nlohmann::ordered_json& study);

}  // namespace gptq::study

#ifndef GPTQ_COMPILED
#include <gptq/study/impl/results.hpp>
#endif
