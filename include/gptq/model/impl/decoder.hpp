// The bodies of <gptq/model/decoder.hpp>.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <utility>

#include <gptq/error.hpp>
#include <gptq/io/model_folder.hpp>
#include <gptq/model/adapter.hpp>
#include <gptq/model/block.hpp>
#include <gptq/model/decoder.hpp>
#include <gptq/model/embedding.hpp>
#include <gptq/model/head.hpp>
#include <gptq/model/model_config.hpp>
#include <gptq/model/rope.hpp>
#include <gptq/model/weights.hpp>
#include <gptq/xtensor/adapt.hpp>

namespace gptq::model {

template <ModelBackend B>
basic_decoder<B> basic_decoder<B>::load(const io::model_folder& folder, const B& backend, head_form head,
                                        std::span<const adapter> adapters) {
    const weight_reader weights(folder);
    model_config config = read_model_config(folder);
    stored_embedding tables = read_embedding(config, weights);
    std::optional<stored_layer> last = read_head(config, weights);
    check_adapters(config, last.has_value(), adapters);
    if (last) add_terms(*last, std::string(config.arch.names.head), adapters);
    if (head == head_form::eight_bits) last = round_head(std::move(last), tables.tokens);
    basic_decoder d(backend, std::move(config), embedding<B>(backend, std::move(tables)));
    for (std::size_t i = 0; i < d.config_.blocks; ++i)
        d.blocks_.push_back(hold_block(backend, read_block(d.config_, weights, i, adapters)));
    d.head_inputs_ = hold_head_inputs(backend, read_head_inputs(d.config_, weights));
    if (last) d.head_.emplace(backend.hold(*std::move(last)));
    return d;
}

template <ModelBackend B>
tensor2<float> basic_decoder<B>::logits(std::span<const std::int32_t> tokens) const {
    const auto states = head_states(tokens);
    auto computed = backend_.template room<float>(tokens.size(), config_.vocab_size);
    head(states.view(), computed.view());
    auto result = make_tensor2<float>(tokens.size(), config_.vocab_size);
    backend_.read(std::as_const(computed).view(), view_of(result));
    return result;
}

template <ModelBackend B>
tensor1<float> basic_decoder<B>::append(std::span<const std::int32_t> tokens, basic_kv_cache<B>& cache) const {
    if (tokens.empty()) throw shape_error("no tokens to append; give at least one");
    const auto states = run(tokens, &cache);
    auto computed = backend_.template room<float>(1, config_.vocab_size);
    head(states.view().block(tokens.size() - 1, 1, 0, config_.embedding_size), computed.view());
    auto result = make_tensor1<float>(config_.vocab_size);
    backend_.read(std::as_const(computed).view(), matrix_view<float>(result.data(), 1, config_.vocab_size));
    return result;
}

template <ModelBackend B>
auto basic_decoder<B>::run(std::span<const std::int32_t> tokens, basic_kv_cache<B>* cache) const -> room_of<B, number> {
    const std::size_t past = cache != nullptr ? cache->length() : 0;
    auto hidden = backend_.template room<float>(tokens.size(), config_.hidden_size);
    embedding_.look_up(backend_, config_, tokens, tokens.size(), past, hidden.view());
    const rope_tables<B> ropes(backend_, config_, past, tokens.size());
    block_buffers<B> buffers;
    block_scratch<B> scratch;
    for (std::size_t i = 0; i < blocks_.size(); ++i) {
        if (before_block_) before_block_();
        std::optional<kv_rows<number>> rows;
        if (cache != nullptr) rows = cache->rows(i, tokens.size());
        block_run<B> block_pass(backend_, config_, blocks_[i], i, ropes, buffers, scratch);
        block_pass.begin(hidden.view(), tokens.size(), rows);
        while (block_pass.next()) {
        }
    }
    if (cache != nullptr) cache->advance(tokens.size());
    return compute_head_inputs(backend_, head_inputs_, config_, std::as_const(hidden).view());
}

}  // namespace gptq::model
