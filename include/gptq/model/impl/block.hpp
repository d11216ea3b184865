// The bodies of <gptq/model/block.hpp>.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <functional>
#include <optional>
#include <string>
#include <string_view>

#include <gptq/compiled.hpp>
#include <gptq/matrix_view.hpp>
#include <gptq/model/attention.hpp>
#include <gptq/model/block.hpp>
#include <gptq/model/buffers.hpp>
#include <gptq/model/elementwise.hpp>
#include <gptq/model/linear.hpp>
#include <gptq/model/model_config.hpp>
#include <gptq/model/rope.hpp>
#include <gptq/model/weights.hpp>

namespace gptq::model {
namespace detail {

GPTQ_INLINE std::size_t hidden_of(const model_config& c) { return c.hidden_size; }

GPTQ_INLINE std::size_t queries_of(const model_config& c) { return c.query_features(); }

GPTQ_INLINE std::size_t keys_of(const model_config& c) { return c.kv_features(); }

GPTQ_INLINE std::size_t intermediate_of(const model_config& c) { return c.intermediate_size; }

}  // namespace detail
}  // namespace gptq::model

namespace gptq::model {

GPTQ_INLINE block load_block(const model_config& config, const weight_reader& weights, std::size_t index) {
    const std::string prefix = config.block_prefix(index);
    block loaded;
    for (const linear_slot& slot : linear_slots) {
        const std::string_view name = config.arch.names.*slot.name;
        if (name.empty()) continue;
        loaded.*slot.where = weights.read_linear(prefix + std::string(name), slot.out_features(config),
                                                 slot.in_features(config), config.*slot.needs_bias);
    }
    for (const norm_slot& slot : norm_slots) {
        const std::string_view name = config.arch.names.*slot.name;
        if (name.empty()) continue;
        loaded.*slot.where =
            weights.read_norm(config, prefix + std::string(name), slot.per_head ? config.head_dim : config.hidden_size);
    }
    return loaded;
}

GPTQ_INLINE block load_block(const model_config& config, const io::model_folder& folder, std::size_t index) {
    return load_block(config, weight_reader(folder), index);
}

GPTQ_INLINE void block_run::operator()(matrix_view<float> hidden, std::size_t window_length,
                                       const std::optional<kv_rows>& cache,
                                       const std::function<void(stage, matrix_view<const float>)>& on_stage) {
    begin(hidden, window_length, cache);
    for (const stage which : stages_in_order) on_stage(which, inputs_of(which));
    finish();
}

GPTQ_INLINE void block_run::begin(matrix_view<float> hidden, std::size_t window_length,
                                  const std::optional<kv_rows>& cache) {
    hidden_ = hidden;
    window_length_ = window_length;
    cache_ = cache;
}

GPTQ_INLINE matrix_view<const float> block_run::inputs_of(stage which) {
    switch (which) {
        case stage::attention_in: return start_attention();
        case stage::attention_out: return attend_windows();
        case stage::mlp_in: finish_attention(); return start_mlp();
        case stage::mlp_out: return compute_intermediate();
    }
    return {};
}

GPTQ_INLINE void block_run::finish() {
    add_branch(weights_.down, intermediate_, weights_.mlp_out_norm);
    if (!config_.norm_before) weights_.mlp_norm->apply(hidden_, hidden_);
}

GPTQ_INLINE matrix_view<const float> block_run::start_attention() {
    buffer_ = buffers_.branch_input.shaped(hidden_.rows, std::max(config_.hidden_size, config_.query_features()));
    return inputs_ = branch_inputs(weights_.attention_norm);
}

GPTQ_INLINE matrix_view<const float> block_run::attend_windows() {
    const std::size_t query_features = config_.query_features();
    const auto attended = buffer_.columns(0, query_features);
    for (std::size_t first = 0; first < hidden_.rows; first += window_length_)
        attend_window(inputs_.block(first, window_length_, 0, inputs_.cols), cache_,
                      attended.block(first, window_length_, 0, query_features));
    return inputs_ = attended;
}

GPTQ_INLINE void block_run::finish_attention() {
    add_branch(weights_.o, inputs_, weights_.attention_out_norm);
    if (!config_.norm_before) weights_.attention_norm->apply(hidden_, hidden_);
}

GPTQ_INLINE matrix_view<const float> block_run::start_mlp() {
    buffer_ = buffers_.branch_input.shaped(hidden_.rows, config_.hidden_size);
    return inputs_ = branch_inputs(weights_.mlp_norm);
}

GPTQ_INLINE matrix_view<const float> block_run::branch_inputs(const std::optional<norm_layer>& norm) const {
    if (!config_.norm_before) return hidden_;
    const auto inputs = buffer_.columns(0, config_.hidden_size);
    norm->apply(hidden_, inputs);
    return inputs;
}

GPTQ_INLINE void block_run::attend_window(matrix_view<const float> inputs, const std::optional<kv_rows>& cache,
                                          matrix_view<float> out) {
    const std::size_t tokens = inputs.rows;
    const auto q = buffers_.q.shaped(tokens, config_.query_features());
    const kv_rows rows = cache ? *cache
                               : kv_rows{buffers_.k.shaped(tokens, config_.kv_features()),
                                         buffers_.v.shaped(tokens, config_.kv_features())};
    const auto k = rows.k.block(rows.k.rows - tokens, tokens, 0, rows.k.cols);
    const auto v = rows.v.block(rows.v.rows - tokens, tokens, 0, rows.v.cols);
    apply_together(inputs, {{weights_.q, q}, {weights_.k, k}, {weights_.v, v}});
    normalize_heads(weights_.q_norm, q);
    normalize_heads(weights_.k_norm, k);
    if (config_.rotary()) {
        rope_.rotate(q);
        rope_.rotate(k);
    }
    attend(config_, attention_window_, q, rows.k, rows.v, buffers_.scores, out);
}

GPTQ_INLINE void block_run::normalize_heads(const std::optional<norm_layer>& norm, matrix_view<float> x) const {
    if (!norm) return;
    const matrix_view<float> heads(x.data, x.rows * x.cols / config_.head_dim, config_.head_dim);
    norm->apply(heads, heads);
}

GPTQ_INLINE matrix_view<const float> block_run::compute_intermediate() {
    intermediate_ = buffers_.intermediate.shaped(hidden_.rows, config_.intermediate_size);
    if (!config_.gated()) {
        weights_.up.apply(inputs_, intermediate_);
        activate(config_.activation, intermediate_);
        return intermediate_;
    }
    for_chunks(inputs_.rows, [&](std::size_t first, std::size_t count) {
        const auto gate = intermediate_.block(first, count, 0, intermediate_.cols);
        const auto up = buffers_.chunk.shaped(count, config_.intermediate_size);
        apply_together(inputs_.block(first, count, 0, inputs_.cols), {{weights_.gate, gate}, {weights_.up, up}});
        activate(config_.activation, gate);
        multiply(gate, up);
    });
    return intermediate_;
}

GPTQ_INLINE void block_run::add_branch(const linear& layer, matrix_view<const float> inputs,
                                       const std::optional<norm_layer>& norm) {
    for_chunks(inputs.rows, [&](std::size_t first, std::size_t count) {
        const auto output = buffers_.chunk.shaped(count, hidden_.cols);
        layer.apply(inputs.block(first, count, 0, inputs.cols), output);
        if (norm) norm->apply(output, output);
        add(hidden_.block(first, count, 0, hidden_.cols), output);
    });
}

}  // namespace gptq::model
