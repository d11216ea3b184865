// stored_layer: a linear layer as the files of a model have it, on its way into the memory of a backend.
#pragma once

#include <variant>

#include <gptq/model/table.hpp>
#include <gptq/xtensor/adapt.hpp>
#include <gptq/xtensor/quantized.hpp>

namespace gptq::model {

/// Y = X W' + bias, W [N, K] as numbers or as codes; or no layer.
struct stored_layer {
    std::variant<std::monostate, table, quantized_layer> weights;
    tensor1<float> bias = make_tensor1<float>(0);  ///< [N], or empty
};

}  // namespace gptq::model
