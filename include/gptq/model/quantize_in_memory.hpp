// A decoder whose layers are what somebody makes of a model's, with any grid or method, and that no file needs to hold.
#pragma once

#include <functional>
#include <string>

#include <gptq/io/model_folder.hpp>
#include <gptq/matrix_view.hpp>
#include <gptq/model/calibration.hpp>
#include <gptq/model/decoder.hpp>
#include <gptq/model/stored_layer.hpp>
#include <gptq/xtensor/surface.hpp>

namespace gptq::model {

/// A linear layer as it is made: codes (of any grid with levels), numbers, or nothing, which leaves it as it is.
using made_layer = decltype(stored_layer::weights);

/// Makes a layer. `name` is that of the files, without ".weight"; W [out_features, in_features] its weights; H the
/// Hessian of its inputs in the model whose earlier layers are made already.
using make_layer =
    std::function<made_layer(const std::string& name, matrix_view<const float> W, const hessian<float>& H)>;

/// Passes the calibration text through the model in `folder`, calls `make` for each linear layer of its blocks in their
/// order, and returns the model with those layers, held as `backend` holds them. Throws what basic_decoder::load
/// throws, shape_error for unusable windows and for a layer of another shape than W, non_finite_error naming the layer
/// for inputs or results that are NaN or infinite, and what `make` throws.
decoder quantize_in_memory(const io::model_folder& folder, const token_windows& windows, const make_layer& make,
                           const cpu_model_backend& backend = {});

}  // namespace gptq::model

#ifndef GPTQ_COMPILED
#include <gptq/model/impl/quantize_in_memory.hpp>
#endif
