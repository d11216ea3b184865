// One block over all calibration windows, some at a time, stopping where its linear layers read a common input.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <type_traits>
#include <vector>

#include <gptq/matrix_view.hpp>
#include <gptq/model/backend.hpp>
#include <gptq/model/block.hpp>
#include <gptq/model/block_description.hpp>
#include <gptq/model/calibration_states.hpp>
#include <gptq/model/model_config.hpp>
#include <gptq/model/rope.hpp>

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

/// What a site's layers read for some windows, in the model at hand and in the float model beside it.
template <class Number>
struct paired_inputs {
    using view = matrix_view<const Number>;
    view inputs = {};        ///< [tokens, K]; no rows where no token goes to the expert
    view float_inputs = {};  ///< likewise, or empty without a float model
    /// The states that the outputs of o and down are added to; empty for the other sites, where a norm comes between,
    /// and without a float model.                                                                   [tokens, hidden]
    matrix_view<const float> states = {}, float_states = {};
    std::size_t first_token = 0;              ///< of the windows, among all of the calibration
    std::span<const std::int32_t> rows = {};  ///< the tokens of the windows that go to the expert, from the first on
    /// Shows what an expert's layers would read if all tokens came to it, some at a time; empty for other layers.
    std::function<void(const std::function<void(view)>&)> for_all_tokens = {};
};

/// What a site's layers read.
template <class Number>
struct stage_inputs {
    using look = std::function<void(const paired_inputs<Number>&)>;
    std::size_t features = 0;       ///< K
    std::size_t tokens = 0;         ///< of the calibration; fewer may come to an expert
    bool beside_float = false;      ///< a float model runs beside the one at hand
    bool of_expert = false;         ///< only the tokens of an expert come here
    bool same_for_experts = false;  ///< for_all_tokens shows the same to every expert of the block
    /// Calls its argument for all windows, some at a time and in their order, as often as it is called.
    std::function<void(const look&)> for_each;
};

template <class B>
using on_stage_of =
    std::function<void(stage_modules<typename B::weights>&, const stage_inputs<typename B::activation>&)>;

namespace detail {

/// The way of all windows through one block.
template <ModelBackend B>
class block_walk {
 public:
    using look = typename stage_inputs<typename B::activation>::look;

    /// `float_weights` of the float model, or null. All arguments must outlive it.
    block_walk(const B& backend, const model_config& config, const block_of<B>& weights,
               const block_of<B>* float_weights, std::size_t index, calibration_states<B>& states)
        : backend_(backend),
          config_(config),
          weights_{&weights, float_weights},
          index_(index),
          states_(states),
          ropes_(backend, config, text_range{0, states.window_length()}),
          stands_at_(states.chunks(), 0) {
        for (std::size_t c = 0; c < states_.chunks(); ++c) {
            if (states_.is_kept(c)) runs_.push_back(begun(c));
            if (!states_.is_kept(c) && config_.parallel) enter(c);
        }
    }

    /// Shows what the layers of a site read, chunk after chunk. The sites before it have the weights they are to have.
    void show(std::size_t site, const look& f) {
        for (std::size_t c = 0; c < states_.chunks(); ++c) pass(c, site, [&](const runs& r) { f(inputs_at(c, r)); });
    }

    /// The states become the block's output.
    void finish() {
        for (std::size_t c = 0; c < states_.chunks(); ++c) pass(c, sites().size(), [](const runs&) {});
    }

 private:
    /// A chunk's ways through the model at hand and the float model.
    struct runs {
        std::unique_ptr<block_run<B>> of[2];
    };

    const std::vector<block_site>& sites() const { return weights_[0]->what.sites; }
    std::size_t models() const { return states_.beside_float() ? 2 : 1; }

    runs begun(std::size_t chunk) {
        return started(chunk, [&](block_run<B>& run, std::size_t m, const block_run<B>* leader) {
            run.begin(states_.states(chunk, m), states_.window_length(), {}, leader);
        });
    }

    /// Runs of a chunk that keeps nothing, where it stands.
    runs resumed(std::size_t chunk) {
        const std::size_t site = stands_at_[chunk];
        return started(chunk, [&](block_run<B>& run, std::size_t m, const block_run<B>* leader) {
            const auto hidden = states_.states(chunk, m);
            const auto entered = changes_what_it_reads(site) ? states_.entered(chunk, m) : hidden;
            run.resume(site, hidden, entered, states_.window_length(), leader);
        });
    }

    template <class Start>
    runs started(std::size_t chunk, const Start& start) {
        runs r;
        for (std::size_t m = 0; m < models(); ++m) {
            r.of[m] = std::make_unique<block_run<B>>(backend_, config_, *weights_[m], index_, ropes_,
                                                     states_.buffers(chunk, m), states_.scratch());
            start(*r.of[m], m, m == 0 ? nullptr : r.of[0].get());
        }
        return r;
    }

    /// f(runs) where they stand at `site`, or past the last one.
    template <class F>
    void pass(std::size_t chunk, std::size_t site, const F& f) {
        if (states_.is_kept(chunk)) {
            advance(chunk, runs_[chunk], site);
            return f(runs_[chunk]);
        }
        const std::size_t before = stands_at_[chunk];
        runs r = resumed(chunk);
        advance(chunk, r, site);
        if (stands_at_[chunk] != before)
            for (std::size_t m = 0; m < models(); ++m) states_.save(chunk, m);
        f(r);
    }

    /// A chunk that keeps nothing stands at the last site that it reached with new states.
    void advance(std::size_t chunk, const runs& r, std::size_t site) {
        std::size_t at = states_.is_kept(chunk) ? r.of[0]->site() : stands_at_[chunk];
        for (; at < site; ++at) {
            for (std::size_t m = 0; m < models(); ++m) r.of[m]->next();
            const bool reads_states = at + 1 == sites().size() || is_in(at + 1);
            if (reads_states) stands_at_[chunk] = at + 1;
            if (!states_.is_kept(chunk) && begins_experts(at + 1)) enter(chunk);
        }
    }

    bool is_in(std::size_t site) const {
        return sites()[site].kind == site_kind::attention_in || sites()[site].kind == site_kind::mlp_in;
    }
    const block_step& step_of(std::size_t site) const {
        return *std::find_if(weights_[0]->what.steps.begin(), weights_[0]->what.steps.end(),
                             [site](const block_step& s) { return site < s.first_site + s.sites; });
    }
    /// Outputs are added to the states before the site reads what they were.
    bool changes_what_it_reads(std::size_t site) const {
        return config_.parallel || step_of(site).kind == step_kind::experts;
    }
    bool begins_experts(std::size_t site) const {
        return site < sites().size() && !config_.parallel && step_of(site).kind == step_kind::experts &&
               step_of(site).first_site == site;
    }
    void enter(std::size_t chunk) {
        for (std::size_t m = 0; m < models(); ++m) {
            if (config_.parallel) states_.states(chunk, m);
            states_.enter(chunk, m);
        }
    }

    paired_inputs<typename B::activation> inputs_at(std::size_t chunk, const runs& r) {
        block_run<B>& run = *r.of[0];
        paired_inputs<typename B::activation> paired;
        paired.inputs = run.inputs();
        paired.first_token = states_.first_token(chunk);
        if (r.of[1] != nullptr) {
            paired.float_inputs = r.of[1]->inputs();
            if (run.adds_to_states()) {
                paired.states = run.states();
                paired.float_states = r.of[1]->states();
            }
        }
        if (!sites()[run.site()].expert) return paired;
        paired.rows = run.rows();
        paired.for_all_tokens = [&run](const auto& see) { run.for_all_tokens(see); };
        return paired;
    }

    const B& backend_;
    const model_config& config_;
    const block_of<B>* weights_[2];
    std::size_t index_;
    calibration_states<B>& states_;
    rope_tables<B> ropes_;
    std::vector<runs> runs_;              // of the chunks that are kept, which are the first ones
    std::vector<std::size_t> stands_at_;  // of the others: the site that their states are for
};

}  // namespace detail

/// Runs block `index` over all windows, whose states it replaces by the block's output. Calls on_stage(modules, inputs)
/// once for each site of the block's description, in this order; the site's outputs are computed afterwards, with
/// whatever weights the modules then have. `float_weights`, where `states` has those of a float model, is the same
/// block of it, which runs in step: its tokens go to the experts of the model at hand. An exception from on_stage
/// leaves `states` unspecified.
template <ModelBackend B>
void run_block_by_stages(const B& backend, const model_config& config, block_of<B>& weights,
                         const std::type_identity_t<block_of<B>>* float_weights, std::size_t index,
                         calibration_states<B>& states, const std::type_identity_t<on_stage_of<B>>& on_stage) {
    detail::block_walk<B> walk(backend, config, weights, float_weights, index, states);
    for (std::size_t i = 0; i < weights.what.sites.size(); ++i) {
        const block_site& site = weights.what.sites[i];
        stage_inputs<typename B::activation> x;
        x.features = site.in_features();
        x.tokens = states.tokens();
        x.beside_float = states.beside_float();
        x.of_expert = site.expert.has_value();
        x.same_for_experts = x.of_expert && site.kind == site_kind::mlp_in;
        x.for_each = [&walk, i](const auto& look) { walk.show(i, look); };
        auto modules = modules_of(weights, i);
        on_stage(modules, x);
    }
    walk.finish();
}

}  // namespace gptq::model
