// norm_layer: what the files say about one normalization.
#pragma once

#include <gptq/model/architecture.hpp>
#include <gptq/xtensor/adapt.hpp>

namespace gptq::model {

/// Normalizes rows of `features` numbers.
struct norm_layer {
    norm_kind kind = norm_kind::rms;
    double eps = 1e-6;
    tensor1<float> weight = make_tensor1<float>(0);  ///< [features], what the kind multiplies by; empty: 1
    tensor1<float> bias = make_tensor1<float>(0);    ///< [features], or empty
};

}  // namespace gptq::model
