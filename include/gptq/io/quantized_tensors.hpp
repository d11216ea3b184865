// The tensors of one quantized linear layer in a checkpoint, and the files that describe them.
//
//     gptq, gptq_v2       NAME.qweight  NAME.qzeros  NAME.scales  NAME.g_idx
//     awq                 NAME.qweight  NAME.qzeros  NAME.scales
//     compressed-tensors  NAME.weight_packed  NAME.weight_scale  NAME.weight_shape  [NAME.weight_zero_point]
//                         [NAME.weight_g_idx]
//
// NAME.bias, if there is one, is an ordinary vector in all: model_folder::read_vector.
#pragma once

#include <set>
#include <string>
#include <string_view>

#include <gptq/error.hpp>
#include <gptq/io/folder_writer.hpp>
#include <gptq/io/model_folder.hpp>
#include <gptq/io/quantization_config.hpp>
#include <gptq/io/tensor_sink.hpp>
#include <gptq/xtensor/quantized.hpp>

namespace gptq::io {

/// Whether the linear layer `module` ("model.layers.0.mlp.up_proj") is stored quantized.
bool is_quantized(const model_folder& folder, std::string_view module);

/// All of them.
std::set<std::string> quantized_modules(const model_folder& folder);

/// The quantized linear layer `module` of a checkpoint, with its scales as exact as the file has them (a scale from an
/// F32 or BF16 tensor need not be a half). Everything is checked against `config`: throws format_error, shape_error or
/// non_finite_error naming the tensor, and unsupported_error for bits that the format has no layout for.
quantized_layer read_quantized(const model_folder& folder, const quantization_config& config, std::string_view module);

/// Hands the tensors of a quantized layer to `sink` under the names of `format`. Throws what pack() throws, naming the
/// module, and what the sink throws.
void write_quantized(const tensor_sink& sink, checkpoint_format format, std::string_view module,
                     const quantized_layer& layer);

/// What the scales of a quantized layer are called in a checkpoint.
std::string scales_name(checkpoint_format format, std::string_view module);

/// Hands `sink` the scales of a quantized layer alone, all of them halves, as write_quantized() does.
void write_scales(const tensor_sink& sink, checkpoint_format format, std::string_view module,
                  const quantized_layer& layer);

/// Writes config.json, which is that of `source` with the description of the quantization in place of any other, and
/// quantize_config.json for the formats that have one. `own_head` makes it say that the head is not the embedding.
/// Throws as folder_writer::write_text.
void write_configs(folder_writer& writer, const model_folder& source, const quantization_config& config,
                   bool own_head = false);

}  // namespace gptq::io

#ifndef GPTQ_COMPILED
#include <gptq/io/impl/quantized_tensors.hpp>
#endif
