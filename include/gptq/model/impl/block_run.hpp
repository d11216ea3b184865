// The bodies of block_run in <gptq/model/block.hpp>.
#pragma once

#include <algorithm>
#include <cstddef>
#include <functional>
#include <optional>
#include <type_traits>

#include <gptq/matrix_view.hpp>
#include <gptq/model/block.hpp>

namespace gptq::model {

template <ModelBackend B>
void block_run<B>::operator()(matrix_view<float> hidden, std::size_t window_length,
                              const std::optional<kv_rows<number>>& cache,
                              const std::function<void(stage, inputs)>& on_stage) {
    begin(hidden, window_length, cache);
    for (const stage which : stages_in_order) on_stage(which, inputs_of(which));
    finish();
}

template <ModelBackend B>
void block_run<B>::begin(matrix_view<float> hidden, std::size_t window_length,
                         const std::optional<kv_rows<number>>& cache) {
    hidden_ = hidden;
    window_length_ = window_length;
    cache_ = cache;
}

template <ModelBackend B>
auto block_run<B>::inputs_of(stage which) -> inputs {
    switch (which) {
        case stage::attention_in: return start_attention();
        case stage::attention_out: return attend_windows();
        case stage::mlp_in: finish_attention(); return start_mlp();
        case stage::mlp_out: return compute_intermediate();
    }
    return {};
}

template <ModelBackend B>
void block_run<B>::finish() {
    add_branch(weights_.down, intermediate_, weights_.mlp_out_norm);
    if (!config_.norm_before) backend_.normalize(*weights_.mlp_norm, hidden_, hidden_);
}

template <ModelBackend B>
auto block_run<B>::start_attention() -> inputs {
    buffer_ =
        buffers_.branch_input.shaped(backend_, hidden_.rows, std::max(config_.hidden_size, config_.query_features()));
    return inputs_ = branch_inputs(weights_.attention_norm);
}

template <ModelBackend B>
auto block_run<B>::attend_windows() -> inputs {
    const std::size_t features = config_.query_features();
    const std::size_t windows = std::max<std::size_t>(1, B::attention_tokens / window_length_);
    const auto attended = buffer_.columns(0, features);
    for_chunks(hidden_.rows, windows * window_length_, [&](std::size_t first, std::size_t count) {
        attend(inputs_.block(first, count, 0, inputs_.cols), cache_, attended.block(first, count, 0, features));
    });
    return inputs_ = attended;
}

template <ModelBackend B>
void block_run<B>::finish_attention() {
    add_branch(weights_.o, inputs_, weights_.attention_out_norm);
    if (!config_.norm_before) backend_.normalize(*weights_.attention_norm, hidden_, hidden_);
}

template <ModelBackend B>
auto block_run<B>::start_mlp() -> inputs {
    buffer_ = buffers_.branch_input.shaped(backend_, hidden_.rows, config_.hidden_size);
    return inputs_ = branch_inputs(weights_.mlp_norm);
}

template <ModelBackend B>
auto block_run<B>::branch_inputs(const std::optional<norm>& layer) const -> inputs {
    const auto x = buffer_.columns(0, config_.hidden_size);
    if (config_.norm_before)
        backend_.normalize(*layer, hidden_, x);
    else if constexpr (std::is_same_v<number, float>)
        return hidden_;
    else
        backend_.convert(hidden_, x);
    return x;
}

template <ModelBackend B>
void block_run<B>::attend(inputs x, const std::optional<kv_rows<number>>& cache, matrix_view<number> out) {
    const std::size_t tokens = x.rows, features = config_.kv_features();
    const auto q = buffers_.q.shaped(backend_, tokens, config_.query_features());
    const kv_rows<number> rows = cache ? *cache
                                       : kv_rows<number>{buffers_.k.shaped(backend_, tokens, features),
                                                         buffers_.v.shaped(backend_, tokens, features)};
    const auto k = rows.k.block(rows.k.rows - tokens, tokens, 0, features);
    const auto v = rows.v.block(rows.v.rows - tokens, tokens, 0, features);
    backend_.multiply(x, {{weights_.q, q}, {weights_.k, k}, {weights_.v, v}});
    normalize_heads(weights_.q_norm, q);
    normalize_heads(weights_.k_norm, k);
    if (config_.rotary()) {
        backend_.rotate(rope_.cosines.view(), rope_.sines.view(), q);
        backend_.rotate(rope_.cosines.view(), rope_.sines.view(), k);
    }
    const attention_shape shape{.heads = config_.heads,
                                .kv_heads = config_.kv_heads,
                                .head_dim = config_.head_dim,
                                .scale = config_.attention_scale,
                                .span = span_,
                                .queries = std::min(tokens, window_length_),
                                .keys = cache ? rows.k.rows : window_length_};
    backend_.attend(shape, q, rows.k, rows.v, buffers_.scratch, out);
}

template <ModelBackend B>
void block_run<B>::normalize_heads(const std::optional<norm>& layer, matrix_view<number> x) const {
    if (!layer) return;
    const matrix_view<number> heads(x.data, x.rows * x.cols / config_.head_dim, config_.head_dim);
    backend_.normalize(*layer, matrix_view<const number>(heads), heads);
}

template <ModelBackend B>
auto block_run<B>::compute_intermediate() -> inputs {
    intermediate_ = buffers_.intermediate.shaped(backend_, hidden_.rows, config_.intermediate_size);
    if (!config_.gated()) {
        backend_.multiply(inputs_, {{weights_.up, intermediate_}});
        backend_.activate(config_.activation, intermediate_);
        return intermediate_;
    }
    for_chunks(inputs_.rows, B::branch_tokens, [&](std::size_t first, std::size_t count) {
        const auto gate = intermediate_.block(first, count, 0, intermediate_.cols);
        const auto up = buffers_.chunk.shaped(backend_, count, config_.intermediate_size);
        backend_.multiply(inputs_.block(first, count, 0, inputs_.cols), {{weights_.gate, gate}, {weights_.up, up}});
        backend_.gate(config_.activation, gate, matrix_view<const number>(up));
    });
    return intermediate_;
}

template <ModelBackend B>
void block_run<B>::add_branch(const typename B::weights& layer, inputs x, const std::optional<norm>& after) {
    for_chunks(x.rows, B::branch_tokens, [&](std::size_t first, std::size_t count) {
        backend_.add_product(x.block(first, count, 0, x.cols), layer, after ? &*after : nullptr, buffers_.scratch,
                             hidden_.block(first, count, 0, hidden_.cols));
    });
}

}  // namespace gptq::model
