// A model that costs nothing to make and to quantize: a Llama of two small blocks with random weights, or a Qwen2-MoE,
// whose tokens are bytes.
#pragma once

#include <cstddef>
#include <filesystem>
#include <string>

#include <gptq/io/folder_writer.hpp>

#include "support/files.hpp"

namespace gptq_test {

/// The sizes of a tiny model.
struct tiny_model {
    std::size_t hidden = 64;
    std::size_t intermediate = 128;
    std::size_t blocks = 2;
    std::size_t heads = 4;
    std::size_t kv_heads = 2;
    std::size_t head_dim = 16;
    bool tied = false;
    /// Five experts of which a token goes to two, and a shared one. The router's rows are a, -a, b, -b and 0, so that two
    /// logits are always positive and no token goes to the last expert.
    bool experts = false;
    std::size_t shard_bytes = gptq::io::default_shard_bytes;

    static constexpr std::size_t vocabulary = 256, expert_count = 5, expert_size = 32;
};

/// Makes the model's folder, which must not exist. Always the same weights for the same sizes.
void write_tiny_model(const std::filesystem::path& folder, const tiny_model& sizes = {});

/// A tokenizer.json of byte-level BPE without merges: a token for each byte.
std::string byte_tokenizer();

/// `bytes` bytes of words.
std::string some_text(std::size_t bytes);

}  // namespace gptq_test
