// Prunes a whole model, block by block, from a folder to a folder: see <gptq/prune.hpp> for how,
// <gptq/model/stages.hpp> for what a block shows of its inputs.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include <gptq/io/model_folder.hpp>
#include <gptq/model/calibration.hpp>
#include <gptq/model/quantize_log.hpp>
#include <gptq/model/quantize_model.hpp>
#include <gptq/options.hpp>
#include <gptq/prune.hpp>

namespace gptq::model {

struct prune_model_options {
    sparsity_pattern pattern;
    bool by_magnitude = false;  ///< by the size of the weights alone, to compare with
    quantize_options solver = {.choose_damping = true};
};

struct prune_result {
    std::vector<module_record> modules;  ///< in their order; rtn_error is that of pruning by magnitude
    std::vector<std::string> warnings;   ///< whatever did not go as asked
    double zeros = 0.0;                  ///< the share of the modules' weights that are 0
    std::uint64_t bytes = 0;             ///< of all tensors written
};

/// Prunes the linear layers of the model in `folder` into the new folder `out`, a float checkpoint in the dtypes of the
/// source, and carries everything else along. Each layer's inputs come from the pruned layers before it, on `windows`
/// of calibration text. `out` appears when all of it is on the disk, or not at all.
///
/// Throws option_error for a pattern that is none or that a layer's inputs are no multiple of, shape_error for unusable
/// windows, unsupported_error for a model that is quantized or whose dtypes are no floats, non_finite_error for weights
/// or activations that are NaN or infinite, io_error where `out` exists or cannot be written, and what the observer
/// throws.
prune_result prune_model(const io::model_folder& folder, const std::filesystem::path& out, const token_windows& windows,
                         const prune_model_options& options, model_observer_ref observer = {});

}  // namespace gptq::model

#ifndef GPTQ_COMPILED
#include <gptq/model/impl/prune_model.hpp>
#endif
