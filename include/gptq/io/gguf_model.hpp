// A GGUF file as a model's folder has it: names, orders of rows and a config.json of the Hugging Face layout.
#pragma once

#include <cstddef>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json.hpp>

#include <gptq/io/dtype.hpp>
#include <gptq/io/gguf.hpp>
#include <gptq/io/safetensors.hpp>

namespace gptq::io {

/// Whether the path is that of a GGUF file: a file, no folder, whose name ends in ".gguf".
bool is_gguf(const std::filesystem::path& path);

/// Whether a tensor of that type holds numbers, no blocks.
constexpr bool holds_floats(gguf_type type) {
    return type == gguf_type::f32 || type == gguf_type::f16 || type == gguf_type::bf16;
}

/// What the numbers of a tensor are when they are read.
constexpr dtype dtype_of(gguf_type type) {
    return type == gguf_type::f16 ? dtype::f16 : type == gguf_type::bf16 ? dtype::bf16 : dtype::f32;
}

/// The name in a checkpoint of the tensor "blk.3.attn_q.weight": "model.layers.3.self_attn.q_proj.weight". Empty for
/// tensors that have none.
std::string name_of_gguf(std::string_view name);

/// Where rows of a tensor lie in the file: llama.cpp rotates neighbours, the checkpoint the halves of a head, so the
/// converter interleaves the halves of q's and k's heads for the architecture "llama".
class row_order {
 public:
    /// Throws format_error where the number of heads does not divide `rows`, the rows of `tensor`.
    row_order(const gguf_file& file, std::string_view tensor, std::size_t rows);

    /// Row r of the checkpoint's layer.
    std::size_t operator()(std::size_t r) const {
        if (!interleaved_) return r;
        const std::size_t in_head = r % head_, half = head_ / 2;
        return r - in_head + 2 * (in_head % half) + in_head / half;
    }

 private:
    std::size_t head_;
    bool interleaved_ = false;
};

/// The model's tensors under their names in a checkpoint, rows in its order; blocks of codes as the F32 numbers that
/// they stand for, which are made when they are read. Throws unsupported_error for a tensor that changes what the model
/// computes and that no checkpoint of the architecture has.
std::vector<tensor_info> gguf_tensors(const gguf_file& file);

/// The config.json that the metadata amount to, for the architectures "llama", "qwen2" and "qwen3". Throws
/// unsupported_error for another one and for scaled rotations, format_error for what is missing or no number.
nlohmann::json gguf_config(const gguf_file& file);

}  // namespace gptq::io

#ifndef GPTQ_COMPILED
#include <gptq/io/impl/gguf_model.hpp>
#endif
