// Quantizes a whole model, block by block, from a folder to a folder.
//
// Each block's inputs come from the already quantized blocks before it, and within a block each layer's inputs from the
// already quantized layers before it. The input of a layer depends on nothing else, so one pass over the calibration
// set collects an input, quantizes the layers that read it, and computes their outputs with the quantized weights.
// Memory holds one block in float, its codes, and the activations of the calibration set: all of them, and then nothing
// is evaluated twice, or as many as a budget allows.
#pragma once

#include <filesystem>

#include <gptq/io/model_folder.hpp>
#include <gptq/model/backend.hpp>
#include <gptq/model/calibration.hpp>
#include <gptq/model/model_observer.hpp>
#include <gptq/model/quantize_log.hpp>
#include <gptq/model/quantize_plan.hpp>

namespace gptq::model {

/// Quantizes the model in `folder` into the new folder `out`, layer by layer on `windows` of calibration text, and
/// carries everything else along. `out` appears when all of it is complete and on the disk, or not at all. Until then
/// out.partial holds the finished blocks: whatever ends a run, the next one with the same arguments goes on with them,
/// to the same bytes as a run that nothing ended (<gptq/io/run_folder.hpp>). It computes no finished block again, but
/// passes the calibration tokens through it.
///
/// Throws what plan_quantization throws; shape_error for unusable windows; io_error where `out` exists, another process
/// works on it, it cannot be written or does not fit on the disk; error where out.partial is another run's, unless
/// options.restart discards that, and where options.memory, or the system's memory by far, is not enough for one
/// window; non_finite_error naming the tensor or the module for weights (all are looked at before the work) or
/// activations that are NaN or infinite; unsupported_error for a layer whose scales halves cannot hold; and whatever
/// the observer throws.
quantize_result quantize_model(const io::model_folder& folder, const std::filesystem::path& out,
                               const token_windows& windows, const quantize_model_options& options,
                               model_observer_ref observer = {});

/// The same on another backend than the CPU's; the body is in <gptq/model/model_quantizer.hpp>.
template <ModelBackend B>
quantize_result quantize_model(const io::model_folder& folder, const std::filesystem::path& out,
                               const token_windows& windows, const quantize_model_options& options,
                               model_observer_ref observer, const B& backend);

}  // namespace gptq::model

#ifndef GPTQ_COMPILED
#include <gptq/model/impl/quantize_model.hpp>
#endif
