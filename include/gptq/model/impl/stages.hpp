// The bodies of <gptq/model/stages.hpp>.
#pragma once

#include <cstddef>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include <gptq/compiled.hpp>
#include <gptq/matrix_view.hpp>
#include <gptq/model/block.hpp>
#include <gptq/model/embedding.hpp>
#include <gptq/model/linear.hpp>
#include <gptq/model/model_config.hpp>
#include <gptq/model/stages.hpp>

namespace gptq::model {

GPTQ_INLINE stage_modules modules_of(const model_config& config, block& weights, std::size_t index, stage which) {
    stage_modules found;
    for (const linear_slot& slot : linear_slots) {
        const std::string_view name = config.arch.names.*slot.name;
        if (slot.stage != which || name.empty()) continue;
        found.modules.push_back(&(weights.*slot.where));
        found.names.push_back(config.block_prefix(index) + std::string(name));
    }
    return found;
}

GPTQ_INLINE void run_block_by_stages(const model_config& config, block& weights, std::size_t index, activations& hidden,
                                     const std::function<void(stage_modules&, matrix_view<const float>)>& on_stage) {
    const rope_tables ropes(config, 0, hidden.window_length);
    block_run run(config, weights, index, ropes, hidden.buffers);
    run(view_of(hidden.states), hidden.window_length, std::nullopt, [&](stage which, matrix_view<const float> inputs) {
        stage_modules modules = modules_of(config, weights, index, which);
        on_stage(modules, inputs);
    });
}

GPTQ_INLINE void run_block_beside_float(const model_config& config, block& weights, const block& float_weights,
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
