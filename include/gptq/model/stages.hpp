// One block over all calibration windows, stopping where its linear layers read a common input.
#pragma once

#include <cstddef>
#include <functional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <gptq/matrix_view.hpp>
#include <gptq/model/backend.hpp>
#include <gptq/model/block.hpp>
#include <gptq/model/embedding.hpp>
#include <gptq/model/model_config.hpp>

namespace gptq::model {

/// The linear layers of a block that read the same input, and what they are called in the files.
template <class Weights>
struct stage_modules {
    std::vector<Weights*> modules;
    std::vector<std::string> names;  ///< e.g. "model.layers.0.self_attn.q_proj"
};

/// The modules of one stage of block `index`.
template <class Weights, class Norm>
stage_modules<Weights> modules_of(const model_config& config, basic_block<Weights, Norm>& weights, std::size_t index,
                                  stage which) {
    stage_modules<Weights> found;
    for (const auto& slot : linear_slots<Weights, Norm>) {
        const std::string_view name = config.arch.names.*slot.name;
        if (slot.stage != which || name.empty()) continue;
        found.modules.push_back(&(weights.*slot.where));
        found.names.push_back(config.block_prefix(index) + std::string(name));
    }
    return found;
}

/// What a stage's layers read, in the model at hand and in the float model beside it.
template <class Number>
struct paired_inputs {
    matrix_view<const Number> inputs, float_inputs;  ///< [tokens, K]
    /// The states that the outputs of o and down are added to; empty for the other stages, and where a norm comes
    /// between.                                                                                     [tokens, hidden]
    matrix_view<const float> states, float_states;
};

template <class B>
using on_stage_of = std::function<void(stage_modules<typename B::weights>&, matrix_view<const typename B::activation>)>;
template <class B>
using on_paired_stage_of =
    std::function<void(stage_modules<typename B::weights>&, const paired_inputs<typename B::activation>&)>;

/// Runs block `index` over all windows in `hidden`, which it replaces by the block's output. Calls
/// on_stage(modules, inputs [tokens, K]) once for each of q/k/v, o, gate/up (or up) and down, in this order, and computes
/// that stage's outputs afterwards with whatever weights the modules then have. Nothing is evaluated twice. Holds at most
/// hidden, one buffer of inputs and one of intermediate features for all tokens. An exception from on_stage leaves
/// `hidden` unspecified.
template <ModelBackend B>
void run_block_by_stages(const B& backend, const model_config& config, block_of<B>& weights, std::size_t index,
                         activations_of<B>& hidden, const std::type_identity_t<on_stage_of<B>>& on_stage) {
    const rope_tables<B> ropes(backend, config, 0, hidden.window_length);
    block_run<B> run(backend, config, weights, index, ropes, hidden.buffers);
    run(hidden.states.view(), hidden.window_length, std::nullopt,
        [&](stage which, matrix_view<const typename B::activation> inputs) {
            auto modules = modules_of(config, weights, index, which);
            on_stage(modules, inputs);
        });
}

/// run_block_by_stages for the model at hand and, in step with it, for the same block of the float model. Twice the time
/// and the memory.
template <ModelBackend B>
void run_block_beside_float(const B& backend, const model_config& config, block_of<B>& weights,
                            const block_of<B>& float_weights, std::size_t index, activations_of<B>& hidden,
                            activations_of<B>& float_hidden,
                            const std::type_identity_t<on_paired_stage_of<B>>& on_stage) {
    const rope_tables<B> ropes(backend, config, 0, hidden.window_length);
    block_run<B> run(backend, config, weights, index, ropes, hidden.buffers);
    block_run<B> float_run(backend, config, float_weights, index, ropes, float_hidden.buffers);
    run.begin(hidden.states.view(), hidden.window_length, std::nullopt);
    float_run.begin(float_hidden.states.view(), float_hidden.window_length, std::nullopt);
    for (const stage which : stages_in_order) {
        paired_inputs<typename B::activation> paired{run.inputs_of(which), float_run.inputs_of(which), {}, {}};
        const bool added_as_is =
            config.norm_before && ((which == stage::attention_out && !weights.attention_out_norm) ||
                                   (which == stage::mlp_out && !weights.mlp_out_norm));
        if (added_as_is) {
            paired.states = std::as_const(hidden.states).view();
            paired.float_states = std::as_const(float_hidden.states).view();
        }
        auto modules = modules_of(config, weights, index, which);
        on_stage(modules, paired);
    }
    run.finish();
    float_run.finish();
}

}  // namespace gptq::model
