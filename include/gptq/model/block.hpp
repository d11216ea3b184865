// One block of a decoder: attention and MLP with their norms, each added to what runs past them.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <functional>
#include <optional>
#include <string_view>

#include <gptq/matrix_view.hpp>
#include <gptq/model/buffers.hpp>
#include <gptq/model/elementwise.hpp>
#include <gptq/model/linear.hpp>
#include <gptq/model/model_config.hpp>
#include <gptq/model/rope.hpp>
#include <gptq/model/weights.hpp>

namespace gptq::model {

/// The weights of a block. What the architecture does not have is empty.
struct block {
    linear q, k, v, o;
    linear gate, up, down;
    std::optional<norm_layer> attention_norm, attention_out_norm;
    std::optional<norm_layer> mlp_norm, mlp_out_norm;
    std::optional<norm_layer> q_norm, k_norm;
};

/// The points where linear layers of a block read their input: q, k and v; o; gate and up; down.
enum class stage { attention_in, attention_out, mlp_in, mlp_out };

/// In the order in which they run.
inline constexpr std::array<stage, 4> stages_in_order = {stage::attention_in, stage::attention_out, stage::mlp_in,
                                                         stage::mlp_out};

/// A linear layer's place in a block: which member, what its tensors are called, at which stage it runs, its shape.
struct linear_slot {
    linear block::*where;
    std::string_view tensor_names::*name;
    model::stage stage;
    std::size_t (*out_features)(const model_config&);
    std::size_t (*in_features)(const model_config&);
    bool model_config::*needs_bias;
};

/// A norm's place likewise.
struct norm_slot {
    std::optional<norm_layer> block::*where;
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
inline constexpr std::array<linear_slot, 7> linear_slots = {{
    {&block::q, &tensor_names::q, stage::attention_in, detail::queries_of, detail::hidden_of, &model_config::qkv_bias},
    {&block::k, &tensor_names::k, stage::attention_in, detail::keys_of, detail::hidden_of, &model_config::qkv_bias},
    {&block::v, &tensor_names::v, stage::attention_in, detail::keys_of, detail::hidden_of, &model_config::qkv_bias},
    {&block::o, &tensor_names::o, stage::attention_out, detail::hidden_of, detail::queries_of, &model_config::o_bias},
    {&block::gate, &tensor_names::gate, stage::mlp_in, detail::intermediate_of, detail::hidden_of,
     &model_config::mlp_bias},
    {&block::up, &tensor_names::up, stage::mlp_in, detail::intermediate_of, detail::hidden_of, &model_config::mlp_bias},
    {&block::down, &tensor_names::down, stage::mlp_out, detail::hidden_of, detail::intermediate_of,
     &model_config::mlp_bias},
}};

inline constexpr std::array<norm_slot, 6> norm_slots = {{
    {&block::attention_norm, &tensor_names::attention_norm, false},
    {&block::attention_out_norm, &tensor_names::attention_out_norm, false},
    {&block::mlp_norm, &tensor_names::mlp_norm, false},
    {&block::mlp_out_norm, &tensor_names::mlp_out_norm, false},
    {&block::q_norm, &tensor_names::q_norm, true},
    {&block::k_norm, &tensor_names::k_norm, true},
}};

/// Reads block `index`. Throws naming the tensor that is missing, or has another shape, type or a value that is not
/// finite.
block load_block(const model_config& config, const weight_reader& weights, std::size_t index);
block load_block(const model_config& config, const io::model_folder& folder, std::size_t index);

/// The keys and values of one block for the positions so far and those about to be computed.
struct kv_rows {
    matrix_view<float> k;  ///< [past + tokens, kv_features], the last `tokens` rows to be written
    matrix_view<float> v;
};

/// Runs one block. `hidden` is replaced by the block's output; its rows are windows of equal length, one after the
/// other, that do not see each other.
class block_run {
 public:
    /// Block `index` of the model. `ropes` covers the positions of a window of tokens. All arguments must outlive the
    /// run.
    block_run(const model_config& config, const block& weights, std::size_t index, const rope_tables& ropes,
              block_buffers& buffers)
        : config_(config),
          weights_(weights),
          rope_(ropes.of_block(config, index)),
          attention_window_(config.windows[index]),
          buffers_(buffers) {}

    /// on_stage(stage, matrix_view<const float> inputs [tokens, K]) is called once for each stage in order, before the
    /// outputs of the stage's linear layers are computed from these inputs. `cache` is for a single window that
    /// continues earlier tokens.
    void operator()(matrix_view<float> hidden, std::size_t window_length, const std::optional<kv_rows>& cache,
                    const std::function<void(stage, matrix_view<const float>)>& on_stage);

    /// The same in steps: begin, inputs_of for each of stages_in_order, finish. Whatever linear layers the block has
    /// when the next step is called are those that its outputs are computed with.
    void begin(matrix_view<float> hidden, std::size_t window_length, const std::optional<kv_rows>& cache);

    /// The inputs of a stage's linear layers; valid until the next step.                                 [tokens, K]
    matrix_view<const float> inputs_of(stage which);

    /// The outputs of the last stage, added to hidden.
    void finish();

 private:
    /// Tokens whose branch outputs are held at a time.
    static constexpr std::size_t chunk_tokens = 512;

    matrix_view<const float> start_attention();

    /// A window's inputs are not needed once its q, k and v are there, so its result takes their place.
    matrix_view<const float> attend_windows();

    void finish_attention();

    matrix_view<const float> start_mlp();

    /// What a branch reads: the normalized states, or the states themselves where norms come after the sum.
    matrix_view<const float> branch_inputs(const std::optional<norm_layer>& norm) const;

    /// out may lie where the inputs do.
    void attend_window(matrix_view<const float> inputs, const std::optional<kv_rows>& cache, matrix_view<float> out);

    /// Each head of each token by itself.
    void normalize_heads(const std::optional<norm_layer>& norm, matrix_view<float> x) const;

    matrix_view<const float> compute_intermediate();

    /// hidden += norm(output of `layer`), the norm only where there is one.
    void add_branch(const linear& layer, matrix_view<const float> inputs, const std::optional<norm_layer>& norm);

    template <class F>
    static void for_chunks(std::size_t rows, F&& f) {
        for (std::size_t first = 0; first < rows; first += chunk_tokens) f(first, std::min(chunk_tokens, rows - first));
    }

    const model_config& config_;
    const block& weights_;
    const rope_table& rope_;
    std::size_t attention_window_;
    block_buffers& buffers_;
    matrix_view<float> hidden_;  // [tokens, hidden]
    std::size_t window_length_ = 0;
    std::optional<kv_rows> cache_;
    matrix_view<float> buffer_;        // [tokens, features of the branch]
    matrix_view<const float> inputs_;  // of the current stage
    matrix_view<float> intermediate_;  // [tokens, intermediate]
};

}  // namespace gptq::model

#ifndef GPTQ_COMPILED
#include <gptq/model/impl/block.hpp>
#endif
