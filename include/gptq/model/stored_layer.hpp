// stored_layer: a linear layer as the files of a model have it, on its way into the memory of a backend.
#pragma once

#include <variant>
#include <vector>

#include <gptq/model/table.hpp>
#include <gptq/xtensor/adapt.hpp>
#include <gptq/xtensor/quantized.hpp>

namespace gptq::model {

/// X down' up' [T, N]: what an adapter adds to the outputs of a layer. Its scale is in `up`.
struct low_rank_term {
    tensor2<float> down;  ///< [r, K]
    tensor2<float> up;    ///< [N, r]
};

/// Y = X W' + terms + bias, W [N, K] as numbers or as codes; or no layer.
struct stored_layer {
    std::variant<std::monostate, table, quantized_layer> weights;
    tensor1<float> bias = make_tensor1<float>(0);  ///< [N], or empty
    std::vector<low_rank_term> terms;              ///< of adapters, one each
};

}  // namespace gptq::model
