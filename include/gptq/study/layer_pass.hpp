// Depth layers: one pass of the float model over the calibration text, and every cell on every layer. A Hessian is made
// once for all cells, and a factor once for all that can share it.
#pragma once

#include <cstddef>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include <gptq/study/cell.hpp>
#include <gptq/study/input.hpp>

namespace gptq::study {

/// A cell on its way through the model. `result` may have the layers of the first blocks already: they are not computed
/// again.
struct layer_cell {
    study_cell cell;
    cell_result result = {};
};

/// How much the model loses when the layers of one stage alone are quantized.
struct stage_sensitivity {
    std::size_t layer = 0;                  ///< index of the decoder block
    std::vector<std::string> modules = {};  ///< names within the block: those that read one input
    double error = 0.0;                     ///< sum over them of tr(D H D') with the probe
    /// Mean over tokens of the divergence of the next token's distribution from the float model's, in nats: what the
    /// loss grows by on texts that the float model would write.
    double divergence = 0.0;
};

nlohmann::ordered_json sensitivity_json(const std::vector<stage_sensitivity>& stages);

/// From such a list. `where` begins messages. Throws format_error.
std::vector<stage_sensitivity> sensitivity_from_json(const nlohmann::ordered_json& list, const std::string& where);

/// Measures sensitivities with one cell for a probe, on the first tokens of some windows of the calibration text.
struct sensitivity_probe {
    study_cell cell;
    std::size_t windows = 4;
    std::size_t length = 256;                    ///< tokens of each, or the windows' length if that is less
    std::vector<stage_sensitivity> stages = {};  ///< those of the first blocks may be there already
};

/// What the cell of a probe is called in a study's folder.
nlohmann::ordered_json probe_json(const sensitivity_probe& probe);

/// Fills the cells' layers and sizes, and the probe's stages where there is a probe. after_block(done, all) follows
/// each block, when all of them have that many. A probe holds the whole float model in memory, else one block is there
/// at a time. Throws non_finite_error naming the module for weights or activations that are NaN or infinite, and what
/// `watch` and `after_block` throw.
void measure_layers(const study_input& input, std::vector<layer_cell>& cells, sensitivity_probe* probe,
                    const study_watch& watch, const std::function<void(std::size_t, std::size_t)>& after_block);

}  // namespace gptq::study

#ifndef GPTQ_COMPILED
#include <gptq/study/impl/layer_pass.hpp>
#endif
