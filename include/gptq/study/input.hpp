// What all cells of a study have in common.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include <gptq/io/model_folder.hpp>
#include <gptq/model/calibration.hpp>
#include <gptq/model/model_config.hpp>
#include <gptq/model/perplexity.hpp>
#include <gptq/study/cell.hpp>

namespace gptq::study {

/// A text to score, as tokens.
struct study_text {
    std::string name;
    std::vector<std::int32_t> tokens;
};

/// The model and the texts, read and tokenized once.
struct study_input {
    const io::model_folder& folder;
    model::model_config config;
    model::token_windows calibration;
    std::vector<study_text> texts;
    model::perplexity_options evaluation;
};

/// How far the work is: fraction from 0 to 1 of the cell or pass at hand, and what comes next. What it throws stops the
/// work (cancelled, for one).
using study_watch = std::function<void(double fraction, const std::string& doing)>;

/// What study.json says: version, model, calibration, texts.
nlohmann::ordered_json study_json(const study_input& input);

/// Everything that can change the result of a cell: itself, the version, the fingerprints of model, calibration and
/// texts, and how the texts are cut. `cell` is cell_json or what a part of a study calls itself.
nlohmann::ordered_json identity_of(const nlohmann::ordered_json& study, const nlohmann::ordered_json& cell,
                                   study_depth depth);

/// How many numbers the tensors of a float model have.
std::uint64_t parameters_of(const io::model_folder& folder);

/// Bytes of all tensors.
std::uint64_t tensor_bytes_of(const io::model_folder& folder);

}  // namespace gptq::study

#ifndef GPTQ_COMPILED
#include <gptq/study/impl/input.hpp>
#endif
