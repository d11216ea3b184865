// What the configuration of a quantized model says of its routers.
#pragma once

#include <gptq/io/quantization_config.hpp>
#include <gptq/model/model_config.hpp>

namespace gptq::model {

/// `wanted` with a rule for each kind of layer that sends tokens to experts: it is not quantized. Readers that replace
/// every linear layer by a quantized one would else look for codes of it. Other models keep the configuration as it is.
io::quantization_config spare_routers(const model_config& config, io::quantization_config wanted);

}  // namespace gptq::model

#ifndef GPTQ_COMPILED
#include <gptq/model/impl/router_rules.hpp>
#endif
