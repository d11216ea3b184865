// From the tensors of a model's folder to linear layers and norms, in the form that they are stored in.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <vector>

#include <gptq/io/model_folder.hpp>
#include <gptq/io/quantization_config.hpp>
#include <gptq/model/model_config.hpp>
#include <gptq/model/norm_layer.hpp>
#include <gptq/model/stored_layer.hpp>
#include <gptq/model/table.hpp>
#include <gptq/xtensor/adapt.hpp>
#include <gptq/xtensor/quantized.hpp>

namespace gptq::model {

/// Reads the parts of one model, quantized or not: each linear layer in the form that its tensors have. The folder
/// must outlive it.
class weight_reader {
 public:
    /// Throws what io::quantization_config::parse throws.
    explicit weight_reader(const io::model_folder& folder)
        : folder_(&folder), quantization_(io::quantization_config::parse(folder)) {}

    /// <name>.weight [rows, cols] in float. Throws shape_error for another shape, and what the folder throws.
    tensor2<float> matrix(const std::string& name, std::size_t rows, std::size_t cols) const;

    /// The same in the numbers that it is stored in.
    table read_table(const std::string& name, std::size_t rows, std::size_t cols) const;

    /// The tensor `name` [size] in float, likewise.
    tensor1<float> vector(const std::string& name, std::size_t size) const;

    /// A linear layer [rows, cols]. Its bias is read where there is one: quantizers store a bias of zeros for layers
    /// that have none; `needs_bias` makes it an error if there is none.
    stored_layer read_linear(const std::string& name, std::size_t rows, std::size_t cols, bool needs_bias) const;

    /// A norm of `features`.
    norm_layer read_norm(const model_config& config, const std::string& name, std::size_t features) const;

    bool contains(const std::string& name) const { return folder_->contains(name); }

    /// The linear layer of that name is stored as codes.
    bool is_quantized(const std::string& name) const;

 private:
    /// Before anything of that size is allocated.
    void require_shape(const std::string& name, const std::vector<std::size_t>& shape) const;

    quantized_layer codes(const std::string& name, std::size_t rows, std::size_t cols) const;

    const io::model_folder* folder_;
    std::optional<io::quantization_config> quantization_;
};

}  // namespace gptq::model

#ifndef GPTQ_COMPILED
#include <gptq/model/impl/weights.hpp>
#endif
