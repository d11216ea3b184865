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
        : basic_kv_cache(config.blocks, config.kv_features(), capacity, backend) {}

    std::size_t length() const { return tokens_.size(); }
    std::size_t capacity() const { return capacity_; }

    /// A copy that goes on by itself. Copies the tokens so far; throws as the constructor.
    basic_kv_cache fork() const {
        basic_kv_cache copy(blocks_, keys_.view().cols, capacity_, backend_);
        copy.tokens_ = tokens_;
        copy.rotated_for_ = rotated_for_;
        if (length() == 0) return copy;
        for (std::size_t i = 0; i < blocks_; ++i) {
            const auto rows = [&](auto m) { return m.block(i * capacity_, length(), 0, m.cols); };
            backend_.convert(rows(keys_.view()), rows(copy.keys_.view()));
            backend_.convert(rows(values_.view()), rows(copy.values_.view()));
        }
        return copy;
    }

    /// Forgets all tokens but the first `length`. Throws shape_error where there are fewer.
    void truncate(std::size_t length) {
        if (length > tokens_.size())
            throw shape_error("a cache of " + std::to_string(tokens_.size()) + " tokens cannot be cut to " +
                              std::to_string(length));
        tokens_.resize(length);
    }

    /// Room for `tokens` more in block `index`, after what is there. Throws shape_error if there is none.
    kv_rows<number> rows(std::size_t index, std::size_t tokens) {
        if (tokens > capacity_ - length())
            throw shape_error("the cache holds " + std::to_string(capacity_) + " tokens; " + std::to_string(length()) +
                              " are in it and " + std::to_string(tokens) + " more do not fit");
        const std::size_t first = index * capacity_, width = keys_.view().cols;
        return {keys_.view().block(first, length() + tokens, 0, width),
                values_.view().block(first, length() + tokens, 0, width), tokens};
    }

    /// The rows of all blocks have been written for these tokens, keys rotated as those of a text of so many tokens.
    void advance(std::span<const std::int32_t> tokens, std::size_t rotated_for) {
        tokens_.insert(tokens_.end(), tokens.begin(), tokens.end());
        rotated_for_ = rotated_for;
    }

    /// A cache of the same room with nothing in it; throws as the constructor.
    basic_kv_cache emptied() const { return basic_kv_cache(blocks_, keys_.view().cols, capacity_, backend_); }

    std::span<const std::int32_t> tokens() const { return tokens_; }
    std::size_t rotated_for() const { return rotated_for_; }

 private:
    basic_kv_cache(std::size_t blocks, std::size_t features, std::size_t capacity, const B& backend)
        : backend_(backend),
          blocks_(blocks),
          capacity_(capacity),
          keys_(room_for(blocks, features, capacity, backend)),
          values_(room_for(blocks, features, capacity, backend)) {}

    static room_of<B, number> room_for(std::size_t blocks, std::size_t features, std::size_t capacity,
                                       const B& backend) {
        const std::size_t rows = checked_multiply(blocks, capacity, "keys and values of the tokens to read");
        const std::size_t elements = checked_elements<float>(rows, features, "keys and values of the tokens to read");
        try {
            return backend.template room<number>(rows, features);
        } catch (const std::bad_alloc&) {
            throw error("out of memory: the keys and values of " + std::to_string(capacity) + " tokens take twice " +
                        std::to_string(elements * sizeof(number)) + " bytes; ask for fewer tokens");
        }
    }

    B backend_;
    std::size_t blocks_, capacity_;
    std::vector<std::int32_t> tokens_;
    std::size_t rotated_for_ = 0;
    room_of<B, number> keys_, values_;  // [blocks * capacity, kv_features]
};

/// Tokens that go on the text in a cache.
template <ModelBackend B>
struct basic_continuation {
    std::span<const std::int32_t> tokens;  ///< at least one
    basic_kv_cache<B>* cache = nullptr;    ///< of the text so far; no other continuation of a step has the same
};

/// A whole model, as files have it or as somebody made it.
struct stored_model {
    model_config config;
    stored_embedding embedding;
    std::function<stored_block(std::size_t)> block;  ///< block i; asked for once each, in order
    stored_head_inputs head_inputs;
    std::optional<stored_layer> head;  ///< [vocab_size, embedding_size]; nothing where it is the embedding
};

/// Sees a matrix that a model computes on its way, under its name, in host memory.                   [tokens, features]
using observe_function = std::function<void(const std::string& name, matrix_view<const float> values)>;

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

    /// Throws what `backend` throws where its memory is exhausted.
    static basic_decoder from(stored_model&& stored, const B& backend = {});

    const model_config& config() const { return config_; }
    const B& backend() const { return backend_; }

    /// From now on `check` is called before each block that tokens pass through. What it throws ends the call of
    /// logits(), head_states() or append() that it is part of, and leaves the model and a cache as they were before.
    void before_each_block(std::function<void()> check) { before_block_ = std::move(check); }

    /// The logits after each token of one text [tokens, vocab_size]. For long texts and large vocabularies, prefer
    /// head_states() and head() for some tokens at a time.
    tensor2<float> logits(std::span<const std::int32_t> tokens) const;

    /// What the head reads, for each token of one text, in the backend's memory [tokens, embedding_size].
    room_of<B, number> head_states(std::span<const std::int32_t> tokens) const {
        const basic_continuation<B> text{tokens, nullptr};
        return run({&text, 1});
    }

    /// states [tokens, embedding_size] to logits [tokens, vocab_size], both in the backend's memory.
    void head(matrix_view<const number> states, matrix_view<float> logits) const {
        if (head_)
            backend_.multiply(states, *head_, logits);
        else
            backend_.multiply(states, embedding_.tokens(), logits);
        if (config_.logit_cap != 0.0f) backend_.cap(config_.logit_cap, logits);
    }

    /// The parts, for who goes through them one by one. Whatever a change of weights gives, the model computes from
    /// then on.
    const embedding<B>& tables() const { return embedding_; }
    std::vector<block_of<B>>& blocks() { return blocks_; }
    head_inputs_of<B>& head_inputs() { return head_inputs_; }
    /// Nothing where the head is the table of the embedding.
    std::optional<typename B::weights>& head_layer() { return head_; }

    /// Reads further tokens of the text in `cache`, and returns the logits after the last of them [vocab_size].
    /// Throws shape_error for no tokens, a token outside the vocabulary, and more tokens than the cache has room for;
    /// the cache then is as it was.
    tensor1<float> append(std::span<const std::int32_t> tokens, basic_kv_cache<B>& cache) const;

    /// Reads further tokens of several texts at once, which costs little more than those of one where they are few, and
    /// returns the logits after the last of each [texts, vocab_size]. Throws as for one text.
    tensor2<float> append(std::span<const basic_continuation<B>> texts) const;

    /// The same, but the logits after every token, text after text [tokens of all, vocab_size].
    tensor2<float> append_each(std::span<const basic_continuation<B>> texts) const;

    /// Reads one text and shows what is computed on the way: what each linear layer reads, the states after each block,
    /// what the head reads, and the logits. `wanted` are some of observable_names(); `see` gets them in the order in
    /// which they are computed. Throws option_error for a name that is none.
    void observe(std::span<const std::int32_t> tokens, std::span<const std::string> wanted,
                 const observe_function& see) const;

 private:
    basic_decoder(const B& backend, model_config config, embedding<B>&& tables)
        : backend_(backend), config_(std::move(config)), embedding_(std::move(tables)) {}

    /// What a run shows of block i at a site, and of the states after it.
    struct run_observer {
        std::function<void(std::size_t block, const block_run<B>&)> at_site;
        std::function<void(std::size_t block, matrix_view<const float>)> after_block;
    };

    /// Texts with caches; or one without, from its beginning. `observer` may be null. Texts rotate as those of at least
    /// `length` tokens do.
    room_of<B, number> run(std::span<const basic_continuation<B>> texts, const run_observer* observer = nullptr,
                           std::size_t length = 0) const;

    /// Reads a text's tokens so far once more where those to come make it one of other frequencies (longrope).
    void reread(const basic_continuation<B>& text) const;

    tensor2<float> logits_of(matrix_view<const number> states) const;

    B backend_;
    model_config config_;
    embedding<B> embedding_;
    std::vector<block_of<B>> blocks_;
    head_inputs_of<B> head_inputs_;
    std::function<void()> before_block_;
    std::optional<typename B::weights> head_;  // nothing where it is embedding_.tokens()
};

using kv_cache = basic_kv_cache<cpu_model_backend>;
using continuation = basic_continuation<cpu_model_backend>;
using decoder = basic_decoder<cpu_model_backend>;

/// Reads a folder for basic_decoder::from, with the terms of adapters. Throws as basic_decoder::load. The folder must
/// outlive what it returns.
stored_model read_stored_model(const io::model_folder& folder, std::span<const adapter> adapters = {});

/// What basic_decoder::observe shows of a model: "model.layers.0.mlp.down_proj.input" and the like for each layer,
/// "model.layers.0.output" for the states after each block, "lm_head.input" and "logits".
std::vector<std::string> observable_names(const model_config& config);

}  // namespace gptq::model

#include <gptq/model/impl/decoder.hpp>
#ifndef GPTQ_COMPILED
#include <gptq/model/impl/stored_model.hpp>
#endif

#ifdef GPTQ_COMPILED
namespace gptq::model {

extern template class block_run<cpu_model_backend>;
extern template class basic_decoder<cpu_model_backend>;

}  // namespace gptq::model
#endif
