// Experts that are stored together, in the way of transformers 5: the weights of all experts of a block are one tensor
// of three dimensions. They are shown one by one, under the names that published checkpoints have.
//
//     gate_up_proj [experts, 2 inside, hidden], the gate's rows first    down_proj [experts, hidden, inside]
//     or both with their last two dimensions exchanged (Qwen3-VL-MoE)
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json.hpp>

#include <gptq/io/safetensors.hpp>

namespace gptq::io {

/// What a stacked checkpoint's tensors are called one by one.
struct expert_names {
    std::string_view model_type;  ///< in config.json
    std::string_view block;       ///< what "mlp." of the stacked form is called
    std::string_view gate, up, down;
};

/// The names for a model; nullptr for models whose experts are not known to be stacked so.
const expert_names* find_expert_names(const nlohmann::json& config);

/// What a tensor of a stacked checkpoint is called in published ones.
std::string published_name(const expert_names& names, std::string stacked);

/// The weights of single experts in `gate_up` and `down` of one block, with the names "PREFIX.0.gate_proj.weight" and
/// so on, where gate_up is called "PREFIX.gate_up_proj". Nothing is read. Throws shape_error, naming both, for shapes
/// that do not belong together.
std::vector<tensor_info> split_experts(const expert_names& names, const tensor_info& gate_up, const tensor_info& down);

}  // namespace gptq::io

#ifndef GPTQ_COMPILED
#include <gptq/io/impl/stacked_experts.hpp>
#endif
