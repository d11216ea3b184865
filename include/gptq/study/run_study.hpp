// A study from its plan to the results of all cells, beside any number of other processes in the same folder.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include <gptq/study/cell.hpp>
#include <gptq/study/folder.hpp>
#include <gptq/study/input.hpp>
#include <gptq/study/layer_pass.hpp>

namespace gptq::study {

struct study_options {
    study_depth depth = study_depth::model;
    bool keep = false;  ///< the checkpoints, in DIR/work
    /// At depth layers: tokens to measure sensitivities on, with the cell of least bits whose method has a solver, if
    /// there is one; 0: none are measured.
    std::size_t sensitivity_tokens = 1024;
    nlohmann::ordered_json machine = nlohmann::ordered_json::object();  ///< what computes, for the record
};

/// What a study tells while it runs. Members may be empty; what they throw stops it.
struct study_observer {
    /// fraction of the cells that were not finished at the start
    study_watch on_progress;
    /// A cell is finished, by this process or, with `here` false, by another one or an earlier run.
    std::function<void(const study_cell&, const cell_result&, bool here)> on_cell;
    /// Nothing is left to begin; other processes compute `cells`. Called several times a second.
    std::function<void(std::size_t cells)> on_waiting;
    /// Before a cell, and after it: the most memory in between, if the system says it.
    std::function<void()> begin_memory;
    std::function<std::optional<std::uint64_t>()> peak_memory;
};

/// A cell and what was measured.
struct study_row {
    study_cell cell;
    cell_result result;
};

/// Computes what is not finished, in the order of `cells`, and returns all rows in that order; at depth model the float
/// model's is before them. Cells that other processes compute are waited for, and taken over where these end without a
/// result. Throws what measuring throws; whatever ends it, finished cells stay.
std::vector<study_row> run_study(const study_input& input, const study_folder& folder,
                                 const std::vector<study_cell>& cells, const study_options& options,
                                 const study_observer& observer);

/// The sensitivities that a study at depth layers measured; nothing where there are none. Of several, those of the
/// probe with least bits. Throws format_error.
std::optional<std::vector<stage_sensitivity>> read_sensitivities(const study_folder& folder);

/// All finished cells of a depth. Throws format_error.
std::vector<study_row> read_rows(const study_folder& folder, study_depth depth);

}  // namespace gptq::study

#ifndef GPTQ_COMPILED
#include <gptq/study/impl/run_study.hpp>
#endif
