// A cell at depth model: quantize_model into a temporary checkpoint, and its perplexity on every text.
#pragma once

#include <filesystem>

#include <gptq/study/cell.hpp>
#include <gptq/study/input.hpp>

namespace gptq::study {

/// Measures a cell. The checkpoint appears under `work`, whose folder exists; one that is there from an earlier run of
/// the same cell, whole or in part, is used. Throws what quantize_model and evaluate_perplexity throw, and what `watch`
/// throws.
cell_result measure_model(const study_input& input, const study_cell& cell, const std::filesystem::path& work,
                          const study_watch& watch);

/// The same of the float model, which needs no folder. Its layers are those that a study quantizes.
cell_result measure_float(const study_input& input, const study_watch& watch);

}  // namespace gptq::study

#ifndef GPTQ_COMPILED
#include <gptq/study/impl/model_cell.hpp>
#endif
