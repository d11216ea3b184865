// The bodies of <gptq/model/window_length.hpp>.
#pragma once

#include <algorithm>
#include <cstddef>
#include <optional>
#include <string>

#include <gptq/compiled.hpp>
#include <gptq/model/model_config.hpp>
#include <gptq/model/window_length.hpp>

namespace gptq::model {

GPTQ_INLINE std::size_t customary_window(const model_config& config) {
    return std::min<std::size_t>(2048, config.max_positions);
}

GPTQ_INLINE std::optional<std::string> window_warning(const model_config& config, std::size_t length) {
    if (length <= config.max_positions) return std::nullopt;
    return "windows of " + std::to_string(length) + " tokens are longer than the " +
           std::to_string(config.max_positions) +
           " that the model was made for (max_position_embeddings); results say little about it, give shorter windows";
}

}  // namespace gptq::model
