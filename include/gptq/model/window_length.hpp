// How long the windows of a text may be for a model.
#pragma once

#include <algorithm>
#include <cstddef>
#include <optional>
#include <string>

#include <gptq/model/model_config.hpp>

namespace gptq::model {

/// The customary window of 2048 tokens, or what the model was made for if that is less.
inline std::size_t customary_window(const model_config& config) {
    return std::min<std::size_t>(2048, config.max_positions);
}

/// What to tell who asks for windows of `length` tokens, if they are longer than the model was made for: it computes
/// something for positions it has never seen, but not what it can do.
inline std::optional<std::string> window_warning(const model_config& config, std::size_t length) {
    if (length <= config.max_positions) return std::nullopt;
    return "windows of " + std::to_string(length) + " tokens are longer than the " +
           std::to_string(config.max_positions) +
           " that the model was made for (max_position_embeddings); results say little about it, give shorter windows";
}

}  // namespace gptq::model
