// Quantizes a whole model into a GGUF file, its layers to the blocks of llama.cpp.
#pragma once

#include <filesystem>

#include <gptq/io/gguf_export.hpp>
#include <gptq/io/model_folder.hpp>
#include <gptq/layouts/ggml_blocks.hpp>
#include <gptq/model/calibration.hpp>
#include <gptq/model/model_observer.hpp>
#include <gptq/options.hpp>

namespace gptq::model {

/// What to make of a model.
struct quantize_gguf_options {
    /// Of the layers in blocks. A layer whose rows its blocks do not divide gets what layout::type_of_rows says.
    const layout::ggml_type* type = layout::find_ggml_type("q4_k");
    /// Its damping; the solver's other options have no effect.
    quantize_options solver = {};
    io::gguf_rest rest = io::gguf_rest::keep;  ///< what happens to the matrices outside of blocks
};

/// Quantizes the linear layers of the model's blocks on `windows` of calibration text, each with the inputs that the
/// quantized layers before it give, and writes `out`. Metadata, tokenizer and all other tensors are those of `base`,
/// the float GGUF file of the same model (or the file that `folder` is). The whole model lies in memory in float.
/// Throws what io::gguf_export and quantize_in_memory throw, and what the observer throws.
io::gguf_result quantize_gguf(const io::model_folder& folder, const std::filesystem::path& base,
                              const std::filesystem::path& out, const token_windows& windows,
                              const quantize_gguf_options& options, model_observer_ref observer = {});

}  // namespace gptq::model

#ifndef GPTQ_COMPILED
#include <gptq/model/impl/quantize_gguf.hpp>
#endif
