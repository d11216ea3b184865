// What a checkpoint in GPTQ's format says for readers that do not take `dynamic` rules as they are: transformers, which
// wants the list of quantized modules, and vLLM, whose layers have names of their own where it fuses several.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include <gptq/io/quantization_config.hpp>
#include <gptq/model/quantize_plan.hpp>

namespace gptq::model {

/// The name of the layer into which vLLM fuses q, k and v, or gate and up, from the name of the first of them; nothing
/// for other modules.
std::optional<std::string> fused_name(std::string_view module);

/// `wanted` with what readers of GPTQ's format ask for, and as it is in other formats: a rule for each fused layer whose
/// parts a rule decides that does not match its name, and, where modules of the blocks stay as they are, the list of
/// those that do not (`modules_in_block_to_quantize`). A module that is quantized in some blocks only has its whole name
/// there, others the end of it. `blocks` is what blocks' names begin with, such as "model.layers.".
io::quantization_config for_readers(io::quantization_config wanted, const quantization_plan& plan,
                                    std::string_view blocks);

}  // namespace gptq::model

#ifndef GPTQ_COMPILED
#include <gptq/model/impl/reader_rules.hpp>
#endif
