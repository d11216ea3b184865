// decoder: a whole model in memory, from token ids to logits.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <new>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <gptq/backends/cpu/model_backend.hpp>
#include <gptq/checked_size.hpp>
#include <gptq/error.hpp>
#include <gptq/io/model_folder.hpp>
#include <gptq/model/adapter.hpp>
#include <gptq/model/backend.hpp>
#include <gptq/model/block.hpp>
#include <gptq/model/embedding.hpp>
#include <gptq/model/head.hpp>
#include <gptq/model/model_config.hpp>
#include <gptq/xtensor/adapt.hpp>

namespace gptq::model {

/// The keys and values of the tokens a model has read so far, for at most `capacity` tokens.
template <ModelBackend B>
class basic_kv_cache {
 public:
    using number = typename B::activation;

    /// Throws shape_error for a capacity that no memory can hold, error saying how much it takes where there is not
    /// enough, and what `backend` throws.
    basic_kv_cache(const model_config& config, std::size_t capacity, const B& backend = {})
        : capacity_(capacity),
          keys_(room_for(config, capacity, backend)),
          values_(room_for(config, capacity, backend)) {}

    std::size_t length() const { return length_; }
    std::size_t capacity() const { return capacity_; }

    /// Room for `tokens` more in block `index`, after what is there. Throws shape_error if there is none.
    kv_rows<number> rows(std::size_t index, std::size_t tokens) {
        if (tokens > capacity_ - length_)
            throw shape_error("the cache holds " + std::to_string(capacity_) + " tokens; " + std::to_string(length_) +
                              " are in it and " + std::to_string(tokens) + " more do not fit");
        const std::size_t first = index * capacity_, width = keys_.view().cols;
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
    static room_of<B, number> room_for(const model_config& config, std::size_t capacity, const B& backend) {
        const std::size_t rows = rows_for(config, capacity);
        try {
            return backend.template room<number>(rows, config.kv_features());
        } catch (const std::bad_alloc&) {
            throw error("out of memory: the keys and values of " + std::to_string(capacity) + " tokens take twice " +
                        std::to_string(rows * config.kv_features() * sizeof(number)) + " bytes; ask for fewer tokens");
        }
    }

    std::size_t capacity_;
    std::size_t length_ = 0;
    room_of<B, number> keys_, values_;  // [blocks * capacity, kv_features]
};

/// A model whose weights are all in the memory of a backend. const functions may run at the same time from several
/// threads where those of the backend may.
template <ModelBackend B>
class basic_decoder {
 public:
    using number = typename B::activation;

    /// Reads a folder, quantized or not, the head in `head`. Throws what reading it throws: unsupported_error for an
    /// architecture or a setting that is not known, format_error, shape_error or non_finite_error naming the tensor
    /// that is wrong; what check_adapters throws; and what `backend` throws where its memory is exhausted. Neither the
    /// folder nor the adapters are needed afterwards.
    static basic_decoder load(const io::model_folder& folder, const B& backend = {}, head_form head = head_form::stored,
                              std::span<const adapter> adapters = {});

    const model_config& config() const { return config_; }
    const B& backend() const { return backend_; }

    /// From now on `check` is called before each block that tokens pass through. What it throws ends the call of
    /// logits(), head_states() or append() that it is part of, and leaves the model and a cache as they were before.
    void before_each_block(std::function<void()> check) { before_block_ = std::move(check); }

    /// The logits after each token of one text [tokens, vocab_size]. For long texts and large vocabularies, prefer
    /// head_states() and head() for some tokens at a time.
    tensor2<float> logits(std::span<const std::int32_t> tokens) const;

    /// What the head reads, for each token of one text, in the backend's memory [tokens, embedding_size].
    room_of<B, number> head_states(std::span<const std::int32_t> tokens) const { return run(tokens, nullptr); }

    /// states [tokens, embedding_size] to logits [tokens, vocab_size], both in the backend's memory.
    void head(matrix_view<const number> states, matrix_view<float> logits) const {
        if (head_)
            backend_.multiply(states, *head_, logits);
        else
            backend_.multiply(states, embedding_.tokens(), logits);
    }

    /// The parts, for who goes through them one by one. Whatever a change of weights gives, the model computes from then
    /// on.
    const embedding<B>& tables() const { return embedding_; }
    std::vector<block_of<B>>& blocks() { return blocks_; }
    head_inputs_of<B>& head_inputs() { return head_inputs_; }
    /// Nothing where the head is the table of the embedding.
    std::optional<typename B::weights>& head_layer() { return head_; }

    /// Reads further tokens of the text in `cache`, and returns the logits after the last of them [vocab_size].
    tensor1<float> append(std::span<const std::int32_t> tokens, basic_kv_cache<B>& cache) const;

 private:
    basic_decoder(const B& backend, model_config config, embedding<B>&& tables)
        : backend_(backend), config_(std::move(config)), embedding_(std::move(tables)) {}

    room_of<B, number> run(std::span<const std::int32_t> tokens, basic_kv_cache<B>* cache) const;

    B backend_;
    model_config config_;
    embedding<B> embedding_;
    std::vector<block_of<B>> blocks_;
    head_inputs_of<B> head_inputs_;
    std::function<void()> before_block_;
    std::optional<typename B::weights> head_;  // nothing where it is embedding_.tokens()
};

using kv_cache = basic_kv_cache<cpu_model_backend>;
using decoder = basic_decoder<cpu_model_backend>;

}  // namespace gptq::model

#include <gptq/model/impl/decoder.hpp>

#ifdef GPTQ_COMPILED
namespace gptq::model {

extern template class block_run<cpu_model_backend>;
extern template class basic_decoder<cpu_model_backend>;

}  // namespace gptq::model
#endif
