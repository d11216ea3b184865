// quantize_settings as JSON: in the description of a checkpoint, and in the record of a run that has not ended.
#pragma once

#include <string>

#include <nlohmann/json.hpp>

#include <gptq/settings.hpp>

namespace gptq::io {

/// {"method": "gptq", "bits": 4, "group_size": 128, "sym": true, "order": "gar", "damping": "auto" or a number,
/// "search": true, "candidates": 1, "refine": {"rounds": 0, "scales": true, "codes": true}, "correct_drift": false},
/// of which round-to-nearest ("rtn") and "awq" have the first four; "guided": true and "smooth": alpha where they are
/// set.
nlohmann::ordered_json settings_json(const quantize_settings& settings);

/// The settings that such an object tells; what it leaves out is as in settings::recommended() or nearest(). `where`
/// begins messages. Throws format_error for values of another type or out of range.
quantize_settings settings_from_json(const nlohmann::ordered_json& object, const std::string& where);

}  // namespace gptq::io

#ifndef GPTQ_COMPILED
#include <gptq/io/impl/settings_json.hpp>
#endif
