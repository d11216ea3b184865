// decoder: a whole model in memory, from token ids to logits.
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
#include <gptq/error.hpp>
#include <gptq/io/model_folder.hpp>
#include <gptq/model/block.hpp>
#include <gptq/model/embedding.hpp>
#include <gptq/model/head.hpp>
#include <gptq/model/model_config.hpp>
#include <gptq/model/rope.hpp>
#include <gptq/model/weights.hpp>
#include <gptq/xtensor/adapt.hpp>

namespace gptq::model {

/// The keys and values of the tokens a model has read so far, for at most `capacity` tokens.
class kv_cache {
 public:
    /// Throws shape_error for a capacity that memory cannot hold, std::bad_alloc where there is not enough of it.
    kv_cache(const model_config& config, std::size_t capacity)
        : capacity_(capacity),
          keys_(rows_for(config, capacity), config.kv_features()),
          values_(rows_for(config, capacity), config.kv_features()) {}

    std::size_t length() const { return length_; }
    std::size_t capacity() const { return capacity_; }

    /// Room for `tokens` more in block `index`, after what is there. Throws shape_error if there is none.
    kv_rows rows(std::size_t index, std::size_t tokens) {
        if (tokens > capacity_ - length_)
            throw shape_error("the cache holds " + std::to_string(capacity_) + " tokens; " + std::to_string(length_) +
                              " are in it and " + std::to_string(tokens) + " more do not fit");
        const std::size_t first = index * capacity_, width = keys_.cols();
        return {keys_.view().block(first, length_ + tokens, 0, width),
                values_.view().block(first, length_ + tokens, 0, width)};
    }

    /// The rows of all blocks have been written for `tokens` more.
    void advance(std::size_t tokens) { length_ += tokens; }

 private:
    static std::size_t rows_for(const model_config& config, std::size_t capacity) {
        const std::size_t rows = checked_multiply(config.blocks, capacity, "keys and values of the tokens to read");
        checked_elements<float>(rows, config.kv_features(), "keys and values of the tokens to read");
        return rows;
    }

    std::size_t capacity_;
    std::size_t length_ = 0;
    matrix<float> keys_, values_;  // [blocks * capacity, kv_features]
};

/// A model whose weights are all in memory. const functions may run at the same time from several threads.
class decoder {
 public:
    /// Reads a folder, quantized or not; quantized layers are held in `form`, the head in `head`. Throws what reading
    /// it throws: unsupported_error for an architecture or a setting that is not known, format_error, shape_error or
    /// non_finite_error naming the tensor that is wrong. The folder is not needed afterwards.
    static decoder load(const io::model_folder& folder, quantized_form form = quantized_form::exact,
                        head_form head = head_form::stored) {
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

    const model_config& config() const { return config_; }

    /// The logits after each token of one text [tokens, vocab_size]. For long texts and large vocabularies, prefer
    /// head_states() and head() for some tokens at a time.
    tensor2<float> logits(std::span<const std::int32_t> tokens) const {
        const auto states = head_states(tokens);
        auto result = make_tensor2<float>(tokens.size(), config_.vocab_size);
        head(view_of(states), view_of(result));
        return result;
    }

    /// What the head reads, for each token of one text [tokens, embedding_size].
    tensor2<float> head_states(std::span<const std::int32_t> tokens) const { return run(tokens, nullptr); }

    /// states [tokens, embedding_size] to logits [tokens, vocab_size].
    void head(matrix_view<const float> states, matrix_view<float> logits) const {
        if (head_)
            head_->apply(states, logits);
        else
            embedding_.tokens.multiply(states, logits);
    }

    /// Reads further tokens of the text in `cache`, and returns the logits after the last of them [vocab_size].
    tensor1<float> append(std::span<const std::int32_t> tokens, kv_cache& cache) const {
        if (tokens.empty()) throw shape_error("no tokens to append; give at least one");
        const auto states = run(tokens, &cache);
        auto result = make_tensor1<float>(config_.vocab_size);
        head(view_of(states).block(tokens.size() - 1, 1, 0, config_.embedding_size),
             {result.data(), 1, config_.vocab_size});
        return result;
    }

 private:
    decoder() = default;

    tensor2<float> run(std::span<const std::int32_t> tokens, kv_cache* cache) const {
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

    model_config config_;
    embedding embedding_;
    std::vector<block> blocks_;
    head_inputs head_inputs_;
    std::optional<linear> head_;  // nothing where it is embedding_.tokens
};

}  // namespace gptq::model
