// One block of a decoder: attention and MLP with their norms, each added to what runs past them.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <functional>
#include <optional>
#include <span>
#include <string_view>

#include <gptq/matrix_view.hpp>
#include <gptq/model/adapter.hpp>
#include <gptq/model/backend.hpp>
#include <gptq/model/buffers.hpp>
#include <gptq/model/model_config.hpp>
#include <gptq/model/rope.hpp>
#include <gptq/model/weights.hpp>

namespace gptq::model {

/// The weights of a block. What the architecture does not have is empty.
template <class Weights, class Norm>
struct basic_block {
    Weights q, k, v, o;
    Weights gate, up, down;
    std::optional<Norm> attention_norm, attention_out_norm;
    std::optional<Norm> mlp_norm, mlp_out_norm;
    std::optional<Norm> q_norm, k_norm;
};

/// As the files have it.
using stored_block = basic_block<stored_layer, norm_layer>;

/// In the memory of a backend.
template <class B>
using block_of = basic_block<typename B::weights, typename B::norm>;

/// The points where linear layers of a block read their input: q, k and v; o; gate and up; down.
enum class stage { attention_in, attention_out, mlp_in, mlp_out };

/// In the order in which they run.
inline constexpr std::array<stage, 4> stages_in_order = {stage::attention_in, stage::attention_out, stage::mlp_in,
                                                         stage::mlp_out};

/// A linear layer's place in a block: which member, what its tensors are called, at which stage it runs, its shape.
template <class Weights, class Norm>
struct linear_slot {
    Weights basic_block<Weights, Norm>::*where;
    std::string_view tensor_names::*name;
    model::stage stage;
    std::size_t (*out_features)(const model_config&);
    std::size_t (*in_features)(const model_config&);
    bool model_config::*needs_bias;
};

/// A norm's place likewise.
template <class Weights, class Norm>
struct norm_slot {
    std::optional<Norm> basic_block<Weights, Norm>::*where;
    std::string_view tensor_names::*name;
    bool per_head;  ///< has head_dim features, not hidden_size
};

namespace detail {

std::size_t hidden_of(const model_config& c);
std::size_t queries_of(const model_config& c);
std::size_t keys_of(const model_config& c);
std::size_t intermediate_of(const model_config& c);

}  // namespace detail

/// In the order in which they run.
template <class W, class N>
inline constexpr std::array<linear_slot<W, N>, 7> linear_slots = {{
    {&basic_block<W, N>::q, &tensor_names::q, stage::attention_in, detail::queries_of, detail::hidden_of,
     &model_config::qkv_bias},
    {&basic_block<W, N>::k, &tensor_names::k, stage::attention_in, detail::keys_of, detail::hidden_of,
     &model_config::qkv_bias},
    {&basic_block<W, N>::v, &tensor_names::v, stage::attention_in, detail::keys_of, detail::hidden_of,
     &model_config::qkv_bias},
    {&basic_block<W, N>::o, &tensor_names::o, stage::attention_out, detail::hidden_of, detail::queries_of,
     &model_config::o_bias},
    {&basic_block<W, N>::gate, &tensor_names::gate, stage::mlp_in, detail::intermediate_of, detail::hidden_of,
     &model_config::mlp_bias},
    {&basic_block<W, N>::up, &tensor_names::up, stage::mlp_in, detail::intermediate_of, detail::hidden_of,
     &model_config::mlp_bias},
    {&basic_block<W, N>::down, &tensor_names::down, stage::mlp_out, detail::hidden_of, detail::intermediate_of,
     &model_config::mlp_bias},
}};

template <class W, class N>
inline constexpr std::array<norm_slot<W, N>, 6> norm_slots = {{
    {&basic_block<W, N>::attention_norm, &tensor_names::attention_norm, false},
    {&basic_block<W, N>::attention_out_norm, &tensor_names::attention_out_norm, false},
    {&basic_block<W, N>::mlp_norm, &tensor_names::mlp_norm, false},
    {&basic_block<W, N>::mlp_out_norm, &tensor_names::mlp_out_norm, false},
    {&basic_block<W, N>::q_norm, &tensor_names::q_norm, true},
    {&basic_block<W, N>::k_norm, &tensor_names::k_norm, true},
}};

/// The slots of stored blocks, for those that only ask for names and shapes.
inline constexpr const auto& stored_slots = linear_slots<stored_layer, norm_layer>;
inline constexpr const auto& stored_norms = norm_slots<stored_layer, norm_layer>;

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
    using weights = typename B::weights;
    using norm = typename B::norm;
    block_of<B> held;
    for (std::size_t i = 0; i < stored_slots.size(); ++i) {
        stored_layer& layer = stored.*stored_slots[i].where;
        if (layer.weights.index() != 0) held.*linear_slots<weights, norm>[i].where = backend.hold(std::move(layer));
    }
    for (std::size_t i = 0; i < stored_norms.size(); ++i) {
        auto& layer = stored.*stored_norms[i].where;
        if (layer) (held.*norm_slots<weights, norm>[i].where).emplace(backend.hold(*std::move(layer)));
    }
    return held;
}

/// read_block and hold_block.
template <ModelBackend B>
block_of<B> load_block(const model_config& config, const io::model_folder& folder, std::size_t index,
                       const B& backend) {
    return hold_block(backend, read_block(config, weight_reader(folder), index));
}

/// The keys and values of one block for the positions so far and those about to be computed.
template <class T>
struct kv_rows {
    matrix_view<T> k;  ///< [past + tokens, kv_features], the last `tokens` rows to be written
    matrix_view<T> v;
};

/// Runs one block. `hidden` is replaced by the block's output; its rows are windows of equal length, one after the
/// other, that do not see each other.
template <ModelBackend B>
class block_run {
 public:
    using number = typename B::activation;
    using inputs = matrix_view<const number>;

    /// Block `index` of the model. `ropes` covers the positions of a window of tokens. All arguments must outlive the
    /// run.
    block_run(const B& backend, const model_config& config, const block_of<B>& weights, std::size_t index,
              const rope_tables<B>& ropes, block_buffers<B>& buffers)
        : backend_(backend),
          config_(config),
          weights_(weights),
          rope_(ropes.of_block(config, index)),
          span_(config.windows[index]),
          buffers_(buffers) {}

    /// on_stage(stage, inputs [tokens, K]) is called once for each stage in order, before the outputs of the stage's
    /// linear layers are computed from these inputs. `cache` is for a single window that continues earlier tokens.
    void operator()(matrix_view<float> hidden, std::size_t window_length, const std::optional<kv_rows<number>>& cache,
                    const std::function<void(stage, inputs)>& on_stage);

    /// The same in steps: begin, inputs_of for each of stages_in_order, finish. Whatever linear layers the block has
    /// when the next step is called are those that its outputs are computed with.
    void begin(matrix_view<float> hidden, std::size_t window_length, const std::optional<kv_rows<number>>& cache);

    /// The inputs of a stage's linear layers; valid until the next step.                                 [tokens, K]
    inputs inputs_of(stage which);

    /// The outputs of the last stage, added to hidden.
    void finish();

 private:
    using norm = typename B::norm;

    inputs start_attention();

    /// A window's inputs are not needed once its q, k and v are there, so its result takes their place.
    inputs attend_windows();

    void finish_attention();

    inputs start_mlp();

    /// What a branch reads: the normalized states, or the states themselves where norms come after the sum.
    inputs branch_inputs(const std::optional<norm>& layer) const;

    /// Some windows. out may lie where the inputs do.
    void attend(inputs x, const std::optional<kv_rows<number>>& cache, matrix_view<number> out);

    /// Each head of each token by itself.
    void normalize_heads(const std::optional<norm>& layer, matrix_view<number> x) const;

    inputs compute_intermediate();

    /// hidden += norm(output of `layer`), the norm only where there is one.
    void add_branch(const typename B::weights& layer, inputs x, const std::optional<norm>& after);

    template <class F>
    static void for_chunks(std::size_t rows, std::size_t chunk, F&& f) {
        for (std::size_t first = 0; first < rows; first += chunk) f(first, std::min(chunk, rows - first));
    }

    const B& backend_;
    const model_config& config_;
    const block_of<B>& weights_;
    const rotation<B>& rope_;
    std::size_t span_;
    block_buffers<B>& buffers_;
    matrix_view<float> hidden_;  // [tokens, hidden]
    std::size_t window_length_ = 0;
    std::optional<kv_rows<number>> cache_;
    matrix_view<number> buffer_;        // [tokens, features of the branch]
    inputs inputs_;                     // of the current stage
    matrix_view<number> intermediate_;  // [tokens, intermediate]
};

}  // namespace gptq::model

#include <gptq/model/impl/block_run.hpp>
#ifndef GPTQ_COMPILED
#include <gptq/model/impl/block.hpp>
#endif
