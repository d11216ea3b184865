// One block over all calibration windows, stopping where its linear layers read a common input.
#pragma once

#include <cstddef>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include <gptq/matrix_view.hpp>
#include <gptq/model/block.hpp>
#include <gptq/model/embedding.hpp>
#include <gptq/model/linear.hpp>
#include <gptq/model/model_config.hpp>

namespace gptq::model {

/// The linear layers of a block that read the same input, and what they are called in the files.
struct stage_modules {
    std::vector<linear*> modules;
    std::vector<std::string> names;  ///< e.g. "model.layers.0.self_attn.q_proj"
};

/// The modules of one stage of block `index`.
inline stage_modules modules_of(const model_config& config, block& weights, std::size_t index, stage which) {
    stage_modules found;
    for (const linear_slot& slot : linear_slots) {
        const std::string_view name = config.arch.names.*slot.name;
        if (slot.stage != which || name.empty()) continue;
        found.modules.push_back(&(weights.*slot.where));
        found.names.push_back(config.block_prefix(index) + std::string(name));
    }
    return found;
}

/// Runs block `index` over all windows in `hidden`, which it replaces by the block's output. Calls
/// on_stage(stage_modules&, matrix_view<const float> inputs [tokens, K]) once for each of q/k/v, o, gate/up (or up)
/// and down, in this order, and computes that stage's outputs afterwards with whatever weights the modules then have.
/// Nothing is evaluated twice. Holds at most hidden, one buffer of inputs and one of intermediate features for all
/// tokens. An exception from on_stage leaves `hidden` unspecified.
inline void run_block_by_stages(const model_config& config, block& weights, std::size_t index, activations& hidden,
                                const std::function<void(stage_modules&, matrix_view<const float>)>& on_stage) {
    const rope_tables ropes(config, 0, hidden.window_length);
    block_run run(config, weights, index, ropes, hidden.buffers);
    run(view_of(hidden.states), hidden.window_length, std::nullopt, [&](stage which, matrix_view<const float> inputs) {
        stage_modules modules = modules_of(config, weights, index, which);
        on_stage(modules, inputs);
    });
}

/// What a stage's layers read, in the model at hand and in the float model beside it.
struct paired_inputs {
    matrix_view<const float> inputs, float_inputs;  ///< [tokens, K]
    /// The states that the outputs of o and down are added to; empty for the other stages, and where a norm comes
    /// between.                                                                                     [tokens, hidden]
    matrix_view<const float> states, float_states;
};

/// run_block_by_stages for the model at hand and, in step with it, for the same block of the float model:
/// on_stage(stage_modules&, const paired_inputs&). Twice the time and the memory.
inline void run_block_beside_float(const model_config& config, block& weights, const block& float_weights,
                                   std::size_t index, activations& hidden, activations& float_hidden,
                                   const std::function<void(stage_modules&, const paired_inputs&)>& on_stage) {
    const rope_tables ropes(config, 0, hidden.window_length);
    block_run run(config, weights, index, ropes, hidden.buffers);
    block_run float_run(config, float_weights, index, ropes, float_hidden.buffers);
    run.begin(view_of(hidden.states), hidden.window_length, std::nullopt);
    float_run.begin(view_of(float_hidden.states), float_hidden.window_length, std::nullopt);
    for (const stage which : stages_in_order) {
        paired_inputs paired{run.inputs_of(which), float_run.inputs_of(which), {}, {}};
        const bool added_as_is =
            config.norm_before && ((which == stage::attention_out && !weights.attention_out_norm) ||
                                   (which == stage::mlp_out && !weights.mlp_out_norm));
        if (added_as_is) {
            paired.states = view_of(std::as_const(hidden.states));
            paired.float_states = view_of(std::as_const(float_hidden.states));
        }
        stage_modules modules = modules_of(config, weights, index, which);
        on_stage(modules, paired);
    }
    run.finish();
    float_run.finish();
}

}  // namespace gptq::model
