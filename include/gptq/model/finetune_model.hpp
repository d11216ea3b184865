// Trains a LoRA adapter (Hu et al., ICLR 2022, arXiv:2106.09685) over a model whose weights stay as they are, quantized
// or not; over a quantized one this is QLoRA (Dettmers et al., NeurIPS 2023, arXiv:2305.14314).
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include <gptq/io/model_folder.hpp>
#include <gptq/model/calibration.hpp>
#include <gptq/model/tune_model.hpp>

namespace gptq::model {

struct finetune_options {
    std::size_t rank = 16;
    double alpha = 32.0;      ///< the adapter adds alpha / rank (X A') B'
    std::size_t steps = 300;  ///< each reads one window
    double rate = 2e-4;       ///< of Adam at first; it falls to 0 as half a cosine does
    /// The layers that get a term, by the ends of their names, such as "q_proj"; none: every linear layer of the
    /// blocks.
    std::vector<std::string> targets = {};
    std::uint64_t seed = 0;  ///< of A, which begins uniform within 1/sqrt(K), where B begins as 0
    /// The folder of an adapter to go on from, whose layers count in place of `targets`; empty: none.
    std::filesystem::path start = {};
};

struct finetune_result {
    double before = 0.0, after = 0.0;  ///< loss of the held-out windows, nats a token
    std::size_t layers = 0;            ///< that got a term
    std::size_t parameters = 0;        ///< numbers of A and B of all of them
    double seconds = 0.0;              ///< of the whole run
};

/// Trains on the next tokens of `windows`, of which one in eight, at most eight, is held out: no step reads it. Writes
/// the folder `out` as PEFT does, adapter_config.json and adapter_model.safetensors in F32, when all is done, or not at
/// all. The model is in memory in float. The observer's progress has the loss of a step's window, -log likelihood in
/// nats a token, before the step.
///
/// Throws option_error for options out of range and targets that the model has not, unsupported_error for experts,
/// shape_error for fewer than two windows, unusable ones, or an adapter to start from of another rank or for other
/// layers, non_finite_error where the loss is not finite, io_error where `out` exists or cannot be written, as
/// adapter::load, and what the observer throws.
finetune_result finetune_model(const io::model_folder& folder, const std::filesystem::path& out,
                               const token_windows& windows, const finetune_options& options,
                               const tune_observer& observer = {});

}  // namespace gptq::model

#ifndef GPTQ_COMPILED
#include <gptq/model/impl/finetune_model.hpp>
#endif
