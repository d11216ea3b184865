// The bodies of <gptq/model/decoder.hpp>.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <gptq/checked_size.hpp>
#include <gptq/compiled.hpp>
#include <gptq/error.hpp>
#include <gptq/io/model_folder.hpp>
#include <gptq/model/block.hpp>
#include <gptq/model/decoder.hpp>
#include <gptq/model/embedding.hpp>
#include <gptq/model/head.hpp>
#include <gptq/model/model_config.hpp>
#include <gptq/model/rope.hpp>
#include <gptq/model/weights.hpp>
#include <gptq/xtensor/adapt.hpp>

namespace gptq::model {

GPTQ_INLINE kv_rows kv_cache::rows(std::size_t index, std::size_t tokens) {
    if (tokens > capacity_ - length_)
        throw shape_error("the cache holds " + std::to_string(capacity_) + " tokens; " + std::to_string(length_) +
                          " are in it and " + std::to_string(tokens) + " more do not fit");
    const std::size_t first = index * capacity_, width = keys_.cols();
    return {keys_.view().block(first, length_ + tokens, 0, width),
            values_.view().block(first, length_ + tokens, 0, width)};
}

GPTQ_INLINE std::size_t kv_cache::rows_for(const model_config& config, std::size_t capacity) {
    const std::size_t rows = checked_multiply(config.blocks, capacity, "keys and values of the tokens to read");
    checked_elements<float>(rows, config.kv_features(), "keys and values of the tokens to read");
    return rows;
}

GPTQ_INLINE decoder decoder::load(const io::model_folder& folder, quantized_form form, head_form head) {
    decoder d;
    const weight_reader weights(folder, form);
    d.config_ = read_model_config(folder);
    d.embedding_ = load_embedding(d.config_, weights);
    for (std::size_t i = 0; i < d.config_.blocks; ++i) d.blocks_.push_back(load_block(d.config_, weights, i));
    d.head_inputs_ = load_head_inputs(d.config_, weights);
    d.head_ = load_head(d.config_, weights);
    if (head == head_form::eight_bits) d.head_ = round_head(std::move(d.head_), d.embedding_, form);
    return d;
}

GPTQ_INLINE tensor2<float> decoder::logits(std::span<const std::int32_t> tokens) const {
    const auto states = head_states(tokens);
    auto result = make_tensor2<float>(tokens.size(), config_.vocab_size);
    head(view_of(states), view_of(result));
    return result;
}

GPTQ_INLINE void decoder::head(matrix_view<const float> states, matrix_view<float> logits) const {
    if (head_)
        head_->apply(states, logits);
    else
        embedding_.tokens.multiply(states, logits);
}

GPTQ_INLINE tensor1<float> decoder::append(std::span<const std::int32_t> tokens, kv_cache& cache) const {
    if (tokens.empty()) throw shape_error("no tokens to append; give at least one");
    const auto states = run(tokens, &cache);
    auto result = make_tensor1<float>(config_.vocab_size);
    head(view_of(states).block(tokens.size() - 1, 1, 0, config_.embedding_size),
         {result.data(), 1, config_.vocab_size});
    return result;
}

GPTQ_INLINE tensor2<float> decoder::run(std::span<const std::int32_t> tokens, kv_cache* cache) const {
    const std::size_t past = cache != nullptr ? cache->length() : 0;
    matrix<float> hidden(tokens.size(), config_.hidden_size);
    embedding_.look_up(config_, tokens, past, hidden.view());
    const rope_tables ropes(config_, past, tokens.size());
    block_buffers buffers;
    for (std::size_t i = 0; i < blocks_.size(); ++i) {
        std::optional<kv_rows> rows;
        if (cache != nullptr) rows = cache->rows(i, tokens.size());
        block_run block_pass(config_, blocks_[i], i, ropes, buffers);
        block_pass(hidden.view(), tokens.size(), rows, [](stage, matrix_view<const float>) {});
    }
    if (cache != nullptr) cache->advance(tokens.size());
    return head_inputs_(config_, hidden.view());
}

}  // namespace gptq::model
