// One block of a decoder: attention and MLP with their norms, each added to what runs past them.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <initializer_list>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include <gptq/matrix_view.hpp>
#include <gptq/model/adapter.hpp>
#include <gptq/model/backend.hpp>
#include <gptq/model/block_description.hpp>
#include <gptq/model/buffers.hpp>
#include <gptq/model/model_config.hpp>
#include <gptq/model/rope.hpp>
#include <gptq/model/routing.hpp>
#include <gptq/model/stored_layer.hpp>
#include <gptq/model/weights.hpp>

namespace gptq::model {

/// The weights of a block as `what` describes it. Norms that the architecture does not have are empty.
template <class Weights, class Norm>
struct basic_block {
    block_description what;
    std::vector<std::vector<Weights>> layers;  ///< one for each module of each site
    std::array<std::optional<Norm>, norm_places> norms;
    Weights router, shared_gate;  ///< of experts, or empty

    std::optional<Norm>& norm(norm_place place) { return norms[static_cast<std::size_t>(place)]; }
    const std::optional<Norm>& norm(norm_place place) const { return norms[static_cast<std::size_t>(place)]; }
};

/// As the files have it.
using stored_block = basic_block<stored_layer, norm_layer>;

/// In the memory of a backend.
template <class B>
using block_of = basic_block<typename B::weights, typename B::norm>;

/// Reads block `index`, with the terms of adapters that check_adapters let through. Throws naming the tensor that is
/// missing, or has another shape, type or a value that is not finite.
stored_block read_block(const model_config& config, const weight_reader& weights, std::size_t index,
                        std::span<const adapter> adapters = {});

/// Throws format_error for a layer that an adapter changes and the model lacks, shape_error for one of another shape.
/// `has_head` tells whether the head is a layer of its own, and not the embedding.
void check_adapters(const model_config& config, bool has_head, std::span<const adapter> adapters);

/// Puts a block into the memory of a backend.
template <ModelBackend B>
block_of<B> hold_block(const B& backend, stored_block&& stored) {
    const auto held_layer = [&](stored_layer& layer) {
        return layer.weights.index() != 0 ? backend.hold(std::move(layer)) : typename B::weights();
    };
    block_of<B> held;
    for (auto& site : stored.layers) {
        auto& layers = held.layers.emplace_back();
        for (stored_layer& layer : site) layers.push_back(held_layer(layer));
    }
    for (std::size_t i = 0; i < norm_places; ++i)
        if (stored.norms[i]) held.norms[i].emplace(backend.hold(*std::move(stored.norms[i])));
    held.router = held_layer(stored.router);
    held.shared_gate = held_layer(stored.shared_gate);
    held.what = std::move(stored.what);
    return held;
}

/// read_block and hold_block.
template <ModelBackend B>
block_of<B> load_block(const model_config& config, const io::model_folder& folder, std::size_t index,
                       const B& backend) {
    return hold_block(backend, read_block(config, weight_reader(folder), index));
}

/// The keys and values of one block for the positions of a text so far and those about to be computed.
template <class T>
struct kv_rows {
    matrix_view<T> k;        ///< [past + tokens, kv_features], the last `tokens` rows to be written
    matrix_view<T> v;        ///< likewise
    std::size_t tokens = 0;  ///< that come now
};

/// Runs one block, from site to site. The states are replaced by the block's output; their rows are windows of equal
/// length, one after the other, that do not see each other.
template <ModelBackend B>
class block_run {
 public:
    using number = typename B::activation;
    using inputs_view = matrix_view<const number>;

    /// Block `index` of the model. `ropes` covers the positions of a window of tokens, or of all tokens of texts. All
    /// arguments must outlive the run.
    block_run(const B& backend, const model_config& config, const block_of<B>& weights, std::size_t index,
              const rope_tables<B>& ropes, block_buffers<B>& buffers, block_scratch<B>& scratch)
        : backend_(backend),
          config_(config),
          weights_(weights),
          rope_(ropes.of_block(config, index)),
          rotates_(config.rotates(index)),
          span_(config.windows[index]),
          buffers_(buffers),
          scratch_(scratch) {}

    /// Stands at the first site. With `texts`, which must outlive the run, the states are those of further tokens of
    /// each, text after text, in place of windows. A run with a leader, which goes one site ahead of it, sends its
    /// tokens to the same experts with the same shares.
    void begin(matrix_view<float> hidden, std::size_t window_length, std::span<const kv_rows<number>> texts,
               const block_run* leader = nullptr) {
        resume(0, hidden, hidden, window_length, leader);
        texts_ = texts;
    }

    /// Stands at `site`, attention_in or mlp_in, as a run does that has passed those before it: `hidden` are the states
    /// by now, `entered` what they were at the start of the site's step, or of the block where its steps read the same.
    void resume(std::size_t site, matrix_view<float> hidden, matrix_view<float> entered, std::size_t window_length,
                const block_run* leader = nullptr);

    /// Goes on to the next site: computes what the layers of the last one make of its inputs, with whatever weights
    /// they have by now. False after the last site, when the states are the block's output.
    bool next();

    /// Where the run stands, an index of the description's sites.
    std::size_t site() const { return site_; }

    /// What the layers of this site read; valid until the next step. Has no rows where no token goes to an expert.
    inputs_view inputs() const { return inputs_; }  // [tokens, K]

    /// The outputs of this site's layer are added to the states as they are.
    bool adds_to_states() const;

    /// What runs past the block, so far.                                                               [tokens, hidden]
    matrix_view<const float> states() const { return hidden_; }

    /// The tokens that come to the expert of this site, which has one.
    std::span<const std::int32_t> rows() const { return tokens_here().rows; }

    /// What the layers of this site would read if every token came to their expert, some tokens at a time.
    void for_all_tokens(const std::function<void(inputs_view)>& look);

 private:
    using norm = typename B::norm;

    const block_site& here() const { return weights_.what.sites[site_]; }
    const block_step& step() const { return weights_.what.steps[step_]; }

    /// What the step's layers read of the states.
    void enter_step();

    /// The inputs of the site, after enter_step.
    void enter_site();

    /// What is left of a step after its last site.
    void leave_step();

    /// The attention of all tokens takes the place of the inputs.
    void attend();

    /// Some windows. out may lie where the inputs do.
    void attend_windows(inputs_view x, matrix_view<number> out);

    /// Likewise for texts, whose keys and values go to where they stay.
    void attend_texts(inputs_view x, matrix_view<number> out);

    /// Queries, keys and values of some tokens, normalized and rotated.
    void project(inputs_view x, matrix_view<number> q, matrix_view<number> k, matrix_view<number> v);

    void attend_over(matrix_view<number> q, matrix_view<number> k, matrix_view<number> v, std::size_t queries,
                     std::size_t keys, matrix_view<number> out);

    /// Each head of each token by itself, or all heads of it together.
    void normalize_heads(norm_place place, matrix_view<number> x) const;

    /// f(gate) up, or f(up), of the layers of mlp_in site `from`.                         x [tokens, hidden]  y [tokens, size]
    void compute_intermediate(std::size_t from, inputs_view x, matrix_view<number> y);

    /// states += norm(outputs), the norm only where there is one.
    void add_branch();

    /// Where each token goes.
    void route_tokens();

    const expert_tokens& tokens_here() const;

    void gather_tokens();

    /// Rows of states += share * outputs.
    void add_shares(const expert_tokens& tokens);

    /// The outputs of the layers of a site for x, each part to a matrix of its own.               part [tokens, features]
    void multiply(std::size_t site, inputs_view x, std::initializer_list<matrix_view<number>> parts);

    template <class F>
    static void for_chunks(std::size_t rows, std::size_t chunk, F&& f) {
        for (std::size_t first = 0; first < rows; first += chunk) f(first, std::min(chunk, rows - first));
    }

    const B& backend_;
    const model_config& config_;
    const block_of<B>& weights_;
    const rotation<B>& rope_;
    bool rotates_;
    std::size_t span_;
    block_buffers<B>& buffers_;
    block_scratch<B>& scratch_;
    matrix_view<float> hidden_;  // [tokens, hidden]
    std::size_t window_length_ = 0;
    std::span<const kv_rows<number>> texts_;
    const block_run* leader_ = nullptr;
    std::size_t site_ = 0, step_ = 0;
    matrix_view<number> buffer_;         // [tokens, features of the branch]
    inputs_view branch_;                 // what the step reads [tokens, hidden]
    inputs_view beside_;                 // what the second step reads where both read the states at the block's start
    inputs_view inputs_;                 // of the current site
    std::vector<expert_tokens> routed_;  // of each expert, then of the shared one
};

}  // namespace gptq::model

#include <gptq/model/impl/block_run.hpp>
#ifndef GPTQ_COMPILED
#include <gptq/model/impl/block.hpp>
#endif
