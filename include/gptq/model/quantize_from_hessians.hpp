// Quantizes the layers of a model that nothing here can run: another program has run it and stored what its linear
// layers read.
//
// Any *.safetensors of a folder may hold, for the weight NAME.weight [N, K] of the model,
//
//     NAME.hessian [K, K]   the sum of x x' over tokens x, times any number: H = (2/T) X'X, as basic_hessian has it
//     NAME.tokens [1]       how many tokens that was, as a float number
//     NAME.input [T, K]     or, in place of both, the tokens themselves, as `gptq eval --dump` writes them
//
// Other tensors in these files are not looked at. All of this is of the float model: layers do not see what quantized
// layers before them give, as they do in quantize_model.
#pragma once

#include <filesystem>

#include <gptq/io/model_folder.hpp>
#include <gptq/model/model_observer.hpp>
#include <gptq/model/quantize_log.hpp>
#include <gptq/model/quantize_plan.hpp>

namespace gptq::model {

/// Quantizes every weight of `folder` that has a Hessian in the folder `hessians` and that no rule leaves alone, and
/// writes the new folder `out` with everything else carried along byte for byte. The architecture does not matter.
/// `out` appears complete or not at all, and an unfinished run is gone on with, as in quantize_model. One Hessian is in
/// memory at a time.
///
/// Throws what plan_quantization throws about settings, shapes and formats; format_error for a Hessian whose weight the
/// model does not have, for a weight without a Hessian where others that differ in a number of their name have one, and
/// for one that is not symmetric; shape_error for one of another size; non_finite_error for NaN and infinity;
/// unsupported_error for settings that need the float model to run; and what quantize_model throws about `out`.
quantize_result quantize_from_hessians(const io::model_folder& folder, const std::filesystem::path& out,
                                       const std::filesystem::path& hessians, const quantize_model_options& options,
                                       model_observer_ref observer = {});

}  // namespace gptq::model

#ifndef GPTQ_COMPILED
#include <gptq/model/impl/quantize_from_hessians.hpp>
#endif
