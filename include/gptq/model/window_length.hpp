// How long the windows of a text may be for a model.
#pragma once

#include <cstddef>
#include <optional>
#include <string>

#include <gptq/model/model_config.hpp>

namespace gptq::model {

/// The customary window of 2048 tokens, or what the model was made for if that is less.
std::size_t customary_window(const model_config& config);

/// What to tell who asks for windows of `length` tokens, if they are longer than the model was made for: it computes
/// something for positions it has never seen, but not what it can do.
std::optional<std::string> window_warning(const model_config& config, std::size_t length);

}  // namespace gptq::model

#ifndef GPTQ_COMPILED
#include <gptq/model/impl/window_length.hpp>
#endif
