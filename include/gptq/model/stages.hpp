// One block over all calibration windows, stopping where its linear layers read a common input.
#pragma once

#include <cstddef>
#include <functional>
#include <optional>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include <gptq/matrix_view.hpp>
#include <gptq/model/backend.hpp>
#include <gptq/model/block.hpp>
#include <gptq/model/block_description.hpp>
#include <gptq/model/embedding.hpp>
#include <gptq/model/model_config.hpp>

namespace gptq::model {

/// The linear layers of a site, and what they are called in the files.
template <class Weights>
struct stage_modules {
    std::vector<Weights*> modules;
    std::vector<std::string> names;  ///< e.g. "model.layers.0.self_attn.q_proj"
};

/// The modules of one of the description's sites.
template <class Weights, class Norm>
stage_modules<Weights> modules_of(basic_block<Weights, Norm>& weights, std::size_t site) {
    stage_modules<Weights> found;
    for (Weights& layer : weights.layers[site]) found.modules.push_back(&layer);
    for (const block_module& m : weights.what.sites[site].modules) found.names.push_back(weights.what.full_name(m));
    return found;
}

/// What a site's layers read, in the model at hand and in the float model beside it.
template <class Number>
struct paired_inputs {
    using view = matrix_view<const Number>;
    view inputs;        ///< [tokens, K]; no rows where no token goes to the expert
    view float_inputs;  ///< likewise, or empty without a float model
    /// The states that the outputs of o and down are added to; empty for the other sites, where a norm comes between,
    /// and without a float model.                                                                   [tokens, hidden]
    matrix_view<const float> states, float_states;
    /// Shows what an expert's layers would read if all tokens came to it, some at a time; empty for other layers.
    std::function<void(const std::function<void(view)>&)> for_all_tokens = {};
    bool same_for_experts = false;  ///< for_all_tokens shows the same to every expert of the block
};

template <class B>
using on_stage_of =
    std::function<void(stage_modules<typename B::weights>&, const paired_inputs<typename B::activation>&)>;

namespace detail {

/// on_stage for the site at which a run stands, and where it is not null another of the float model.
template <ModelBackend B>
void show_site(block_of<B>& weights, block_run<B>& run, const block_run<B>* float_run, activations_of<B>& hidden,
               activations_of<B>* float_hidden, const on_stage_of<B>& on_stage) {
    paired_inputs<typename B::activation> paired{run.inputs(), {}, {}, {}};
    if (float_run != nullptr) {
        paired.float_inputs = float_run->inputs();
        if (run.adds_to_states()) {
            paired.states = std::as_const(hidden.states).view();
            paired.float_states = std::as_const(float_hidden->states).view();
        }
    }
    const block_site& site = weights.what.sites[run.site()];
    if (site.expert) paired.for_all_tokens = [&run](const auto& look) { run.for_all_tokens(look); };
    paired.same_for_experts = site.expert && site.kind == site_kind::mlp_in;
    auto modules = modules_of(weights, run.site());
    on_stage(modules, paired);
}

}  // namespace detail

/// Runs block `index` over all windows in `hidden`, which it replaces by the block's output. Calls on_stage(modules,
/// inputs) once for each site of the block's description, in this order, and computes the site's outputs afterwards with
/// whatever weights the modules then have. Nothing is evaluated twice. Holds at most hidden, one buffer of inputs and one
/// of intermediate features for all tokens. An exception from on_stage leaves `hidden` unspecified.
template <ModelBackend B>
void run_block_by_stages(const B& backend, const model_config& config, block_of<B>& weights, std::size_t index,
                         activations_of<B>& hidden, const std::type_identity_t<on_stage_of<B>>& on_stage) {
    const rope_tables<B> ropes(backend, config, 0, hidden.window_length);
    block_run<B> run(backend, config, weights, index, ropes, hidden.buffers);
    run.begin(hidden.states.view(), hidden.window_length, std::nullopt);
    while (run.next()) detail::show_site<B>(weights, run, nullptr, hidden, nullptr, on_stage);
}

/// run_block_by_stages for the model at hand and, in step with it, for the same block of the float model, whose tokens go
/// to the experts of the model at hand. Twice the time and the memory.
template <ModelBackend B>
void run_block_beside_float(const B& backend, const model_config& config, block_of<B>& weights,
                            const block_of<B>& float_weights, std::size_t index, activations_of<B>& hidden,
                            activations_of<B>& float_hidden, const std::type_identity_t<on_stage_of<B>>& on_stage) {
    const rope_tables<B> ropes(backend, config, 0, hidden.window_length);
    block_run<B> run(backend, config, weights, index, ropes, hidden.buffers);
    block_run<B> float_run(backend, config, float_weights, index, ropes, float_hidden.buffers);
    run.begin(hidden.states.view(), hidden.window_length, std::nullopt);
    float_run.begin(float_hidden.states.view(), float_hidden.window_length, std::nullopt, &run);
    while (run.next()) {
        float_run.next();
        detail::show_site<B>(weights, run, &float_run, hidden, &float_hidden, on_stage);
    }
    float_run.next();
}

}  // namespace gptq::model
