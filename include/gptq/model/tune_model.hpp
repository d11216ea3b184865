// Tunes the scales of a quantized model end to end: its codes stay, and its scales move so that its distributions of
// the next token come near those of the float model (the second phase of EfficientQAT, Chen et al., ACL 2025, with
// distillation).
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include <gptq/io/model_folder.hpp>
#include <gptq/model/calibration.hpp>

namespace gptq::model {

struct tune_options {
    std::size_t steps = 300;  ///< each reads one window
    /// The relative change of a scale in a step at first, at most; it falls to 0 as half a cosine does. Nothing: by the
    /// bits of each layer, usual_rate().
    std::optional<double> rate = std::nullopt;
    bool norms = false;    ///< tune the parameters of norms as well
    bool restart = false;  ///< discard what an unfinished run has left, in place of going on with it
};

/// 0.005 for 2 bits, 0.002 for 3, 0.001 for more: what wide grids may lose by a scale that is wrong is less.
double usual_rate(int bits);

/// How far a run is, in what it makes small, in nats a token: here KL(float model || model), each token of a window
/// counted.
struct tune_progress {
    std::size_t step = 0;                           ///< done
    double loss = 0.0;                              ///< of the step's window, before the step; none at step 0
    std::optional<double> held_out = std::nullopt;  ///< of the windows that no step reads, where they were just read
};

/// Who watches. Each function may be empty; what they throw ends the run, and nothing is written.
struct tune_observer {
    std::function<void()> before_block;  ///< often: before each block of each pass
    std::function<void(const tune_progress&)> on_step;
    std::function<void(std::size_t step)> on_resumed = {};  ///< an unfinished run has done so many steps
};

struct tune_result {
    double before = 0.0, after = 0.0;   ///< held-out divergence of the model as it came and as it is written
    std::size_t kept_step = 0;          ///< the step after which the held-out divergence was least; 0: as it came
    std::size_t layers = 0, norms = 0;  ///< how many were tuned: layers, and tensors of norms
    std::uint64_t bytes = 0;            ///< of all tensors written
    double seconds = 0.0;               ///< of the whole run
    double forward_seconds = 0.0;       ///< of one forward pass, without the reference's, on average
    double reverse_seconds = 0.0;       ///< of one reverse pass, what its blocks compute again included
    std::vector<std::string> warnings = {};
};

/// Tunes the checkpoint in `folder` against the model in `reference`, usually the float model that it was made from,
/// and writes the new checkpoint `out` in the same format. All tensors but scales (and norms) are copied byte for byte.
/// Of `windows` one in eight, at most eight, is held out: no step reads it, and the scales kept are those that do best
/// on it. Both models are in memory in float. `out` appears when all of it is on the disk, or not at all. Until then
/// out.partial holds the numbers and Adam's state of the last look at the held-out windows: whatever ends a run, the
/// next one with the same arguments goes on from there, to the same bytes (<gptq/io/run_folder.hpp>).
///
/// Throws format_error for a checkpoint that is not quantized, unsupported_error for experts, option_error for options
/// out of range, shape_error for fewer than two windows, unusable ones, or models of different vocabularies,
/// non_finite_error where the loss is not finite, io_error where `out` exists, another process works on it or it cannot
/// be written, error where out.partial is another run's, unless options.restart discards that, and what the observer
/// throws.
tune_result tune_model(const io::model_folder& folder, const io::model_folder& reference,
                       const std::filesystem::path& out, const token_windows& windows, const tune_options& options,
                       const tune_observer& observer = {});

}  // namespace gptq::model

#ifndef GPTQ_COMPILED
#include <gptq/model/impl/tune_model.hpp>
#endif
