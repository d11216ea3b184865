// decoder: a whole model in memory, from token ids to logits.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include <gptq/io/model_folder.hpp>
#include <gptq/model/block.hpp>
#include <gptq/model/embedding.hpp>
#include <gptq/model/head.hpp>
#include <gptq/model/model_config.hpp>
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
    kv_rows rows(std::size_t index, std::size_t tokens);

    /// The rows of all blocks have been written for `tokens` more.
    void advance(std::size_t tokens) { length_ += tokens; }

 private:
    static std::size_t rows_for(const model_config& config, std::size_t capacity);

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
                        head_form head = head_form::stored);

    const model_config& config() const { return config_; }

    /// The logits after each token of one text [tokens, vocab_size]. For long texts and large vocabularies, prefer
    /// head_states() and head() for some tokens at a time.
    tensor2<float> logits(std::span<const std::int32_t> tokens) const;

    /// What the head reads, for each token of one text [tokens, embedding_size].
    tensor2<float> head_states(std::span<const std::int32_t> tokens) const { return run(tokens, nullptr); }

    /// states [tokens, embedding_size] to logits [tokens, vocab_size].
    void head(matrix_view<const float> states, matrix_view<float> logits) const;

    /// Reads further tokens of the text in `cache`, and returns the logits after the last of them [vocab_size].
    tensor1<float> append(std::span<const std::int32_t> tokens, kv_cache& cache) const;

 private:
    decoder() = default;

    tensor2<float> run(std::span<const std::int32_t> tokens, kv_cache* cache) const;

    model_config config_;
    embedding embedding_;
    std::vector<block> blocks_;
    head_inputs head_inputs_;
    std::optional<linear> head_;  // nothing where it is embedding_.tokens
};

}  // namespace gptq::model

#ifndef GPTQ_COMPILED
#include <gptq/model/impl/decoder.hpp>
#endif
