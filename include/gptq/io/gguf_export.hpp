// A quantized checkpoint as a GGUF file for llama.cpp: codes and scales become its blocks of 32 weights as they are.
#pragma once

#include <cstddef>
#include <filesystem>
#include <functional>
#include <set>
#include <span>
#include <string>
#include <vector>

#include <gptq/io/gguf.hpp>
#include <gptq/io/gguf_model.hpp>
#include <gptq/io/model_folder.hpp>

namespace gptq::io {

/// What was written.
struct gguf_result {
    std::size_t layers = 0;          ///< written as codes
    std::size_t bytes = 0;           ///< of all tensors
    std::vector<std::string> types;  ///< of the layers, each once, e.g. "q4_0"
};

/// What happens to the matrices that are not quantized: embeddings, and a head in floats.
enum class gguf_rest { keep, q8_0 };

/// A file in the making, from a float file `base` whose layers get other types: what it will hold is checked and known
/// before anything is computed.
class gguf_export {
 public:
    /// The type of a layer, given its module ("model.layers.0.mlp.up_proj") and its tensor in the base.
    using type_of_layer = std::function<gguf_type(const std::string& module, const gguf_tensor& tensor)>;

    /// Fills in the bytes of a layer, whose row r lies at place(r).
    using fill_layer = std::function<void(const std::string& module, const gguf_tensor& tensor, const row_order& place,
                                          std::span<std::byte> bytes)>;

    /// Throws format_error where the base, which outlives this, has no tensor for one of the modules, and what type_of
    /// throws.
    gguf_export(const gguf_file& base, const std::set<std::string>& modules, gguf_rest rest,
                const type_of_layer& type_of);

    /// Throws what write_gguf and `fill` throw.
    gguf_result write(const std::filesystem::path& out, const fill_layer& fill) const;

 private:
    const gguf_file& base_;
    std::vector<gguf_output> outputs_;
    std::vector<std::string> modules_;  // of each output; empty for what comes from the base
};

/// Writes `out` from the quantized checkpoint `folder` and from `base`, the float GGUF file that llama.cpp's converter
/// made of the model it was quantized from: metadata, tokenizer and everything that is not quantized come from there.
///
/// A layer becomes the smallest type that holds its values exactly: level = code - zero point, with the group's scale
/// in each block. Groups are multiples of 32 in the original order of the columns; a symmetric layer of up to 4 bits is
/// Q4_0, one of 5 bits or an asymmetric one of up to 4 bits is Q5_0, any other is Q8_0.
///
/// Throws unsupported_error naming the layer for act-order groups, for groups that no block fits in, and for levels
/// that no type holds; format_error where `base` is no float file of the same model; what gguf_file and write_gguf
/// throw.
gguf_result export_gguf(const model_folder& folder, const std::filesystem::path& base, const std::filesystem::path& out,
                        gguf_rest rest = gguf_rest::keep);

}  // namespace gptq::io

#ifndef GPTQ_COMPILED
#include <gptq/io/impl/gguf_export.hpp>
#endif
