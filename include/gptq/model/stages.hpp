// One block over all calibration windows, stopping where its linear layers read a common input.
#pragma once

#include <cstddef>
#include <functional>
#include <string>
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
stage_modules modules_of(const model_config& config, block& weights, std::size_t index, stage which);

/// Runs block `index` over all windows in `hidden`, which it replaces by the block's output. Calls
/// on_stage(stage_modules&, matrix_view<const float> inputs [tokens, K]) once for each of q/k/v, o, gate/up (or up)
/// and down, in this order, and computes that stage's outputs afterwards with whatever weights the modules then have.
/// Nothing is evaluated twice. Holds at most hidden, one buffer of inputs and one of intermediate features for all
/// tokens. An exception from on_stage leaves `hidden` unspecified.
void run_block_by_stages(const model_config& config, block& weights, std::size_t index, activations& hidden,
                         const std::function<void(stage_modules&, matrix_view<const float>)>& on_stage);

/// What a stage's layers read, in the model at hand and in the float model beside it.
struct paired_inputs {
    matrix_view<const float> inputs, float_inputs;  ///< [tokens, K]
    /// The states that the outputs of o and down are added to; empty for the other stages, and where a norm comes
    /// between.                                                                                     [tokens, hidden]
    matrix_view<const float> states, float_states;
};

/// run_block_by_stages for the model at hand and, in step with it, for the same block of the float model:
/// on_stage(stage_modules&, const paired_inputs&). Twice the time and the memory.
void run_block_beside_float(const model_config& config, block& weights, const block& float_weights, std::size_t index,
                            activations& hidden, activations& float_hidden,
                            const std::function<void(stage_modules&, const paired_inputs&)>& on_stage);

}  // namespace gptq::model

#ifndef GPTQ_COMPILED
#include <gptq/model/impl/stages.hpp>
#endif
