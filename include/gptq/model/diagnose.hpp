// diagnose: where a quantized checkpoint, of whatever program, goes wrong, and what mends it.
//
// Each layer is measured on what it reads in the float model, beside the same weights rounded to nearest. A layer that
// is far worse is tried again with changes that undo what is known to happen to files. The change that brings the error
// down names the cause.
#pragma once

#include <cstddef>
#include <functional>
#include <string>
#include <vector>

#include <gptq/io/model_folder.hpp>
#include <gptq/model/calibration.hpp>

namespace gptq::model {

/// What may be wrong with a checkpoint.
enum class fault {
    unreadable,             ///< a tensor is missing, or is not what it should be
    config,                 ///< config.json describes other computations than the float model's
    zero_points_too_large,  ///< by one: a gptq_v2 file that is read as gptq
    zero_points_too_small,  ///< by one: the other way round
    act_order_lost,         ///< g_idx does not say which group a column is of
    scales,                 ///< some scales do not fit their codes
    codes,                  ///< a layer is far from the float model's, and nothing known mends it
    other_weights,          ///< what is not quantized differs from the float model
    head,                   ///< the output layer is missing, or is the embedding though it should not be
    not_finite,             ///< the model's states become NaN or infinite
    hard_layer              ///< as good as rounding to nearest, and still far worse than other layers of its kind
};

/// The name in programs' output, and in words what is wrong and what to do.
struct fault_description {
    std::string name, says, remedy;
};
fault_description describe(fault what);

/// One linear layer of the checkpoint.
struct layer_diagnosis {
    std::string name;
    double error = 0.0;      ///< squared error of its outputs for the float model's inputs, as a part of their energy
    double rtn_error = 0.0;  ///< the same for weights rounded to nearest with its bits and groups
};

/// One fault, and all places that have it.
struct finding {
    fault what = fault::unreadable;
    std::vector<std::string> where;  ///< layers, tensors, keys, or blocks
    std::string example;             ///< more about the first of them, or empty
};

struct diagnosis {
    std::vector<layer_diagnosis> layers;  ///< quantized layers that tokens come to, in the order of the model
    std::vector<double> stream_errors;    ///< of the states after each block: squared error, as a part of their energy
    std::vector<finding> findings;        ///< empty: nothing stands out
};

/// Compares `folder`, quantized, with `reference`, the float model that it was made from, on `windows` of text. Holds
/// one block of each in float. `before_block` is called with the block's index before each block, and may throw. Throws
/// shape_error where the two are models of different shapes, and what reading throws for the float model or for a
/// config.json; what is wrong with a tensor of `folder` is a finding.
diagnosis diagnose(const io::model_folder& folder, const io::model_folder& reference, const token_windows& windows,
                   const std::function<void(std::size_t)>& before_block = {});

}  // namespace gptq::model

#ifndef GPTQ_COMPILED
#include <gptq/model/impl/diagnose.hpp>
#endif
