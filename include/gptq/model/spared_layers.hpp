// What the configuration of a quantized model says of linear layers that stay as they are.
#pragma once

#include <string>
#include <string_view>

#include <nlohmann/json.hpp>

#include <gptq/io/model_folder.hpp>
#include <gptq/io/quantization_config.hpp>
#include <gptq/model/model_config.hpp>

namespace gptq::model {
namespace detail {

/// Adds the rule that leaves alone what `expression` matches.
void spare(nlohmann::ordered_json& rules, const std::string& expression);

}  // namespace detail

/// `wanted` with a rule for each kind of layer that sends tokens to experts, and for each part of `folder` beside a
/// wrapped text model (<gptq/model/wrapped_text.hpp>): it is not quantized. Readers that replace every linear layer by
/// a quantized one would else look for codes of it. Other models keep the configuration as it is.
io::quantization_config spare_others(const model_config& config, const io::model_folder& folder,
                                     io::quantization_config wanted);

}  // namespace gptq::model

#ifndef GPTQ_COMPILED
#include <gptq/model/impl/spared_layers.hpp>
#endif
