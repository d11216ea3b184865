// What can go wrong in hours of work and is known before: numbers in the weights that no checkpoint can hold, and the
// memory that the work takes, which decides where the states of the calibration text are.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include <gptq/io/model_folder.hpp>
#include <gptq/io/quantization_config.hpp>
#include <gptq/io/run_folder.hpp>
#include <gptq/matrix_view.hpp>
#include <gptq/model/calibration.hpp>
#include <gptq/model/calibration_states.hpp>
#include <gptq/model/model_config.hpp>
#include <gptq/model/quantize_plan.hpp>
#include <gptq/xtensor/quantized.hpp>

namespace gptq::model {

namespace detail {

/// Whether halves hold the scales that a module needs, from its weights some rows at a time.
class scale_check {
 public:
    scale_check(const module_plan& module, const quantize_settings& settings) : module_(module), settings_(settings) {}

    /// Rows first, first + 1, ... of the weights. Throws unsupported_error, naming the module, for a scale too large.
    void add(std::size_t first, matrix_view<const float> rows);

    /// Throws unsupported_error, naming the module, where too much of its weights needs scales too small.
    void finish() const;

 private:
    const module_plan& module_;
    const quantize_settings& settings_;
    double all_ = 0.0, vanishing_ = 0.0;  // squared weights
};

/// Throws unsupported_error, naming the module, where a scale of its codes is at the limit: it was cut off there.
void check_scales(const std::string& module, const quantized_layer& layer);

/// Throws shape_error for tokens that make no windows, or that the vocabulary lacks.
void check_windows(const model_config& config, const token_windows& windows);

/// Refuses a disk that cannot hold the finished blocks of a run, its result, and `states_bytes` of states at once,
/// before the work rather than after it, and files to carry along that cannot be opened. Throws io_error.
void check_space(const io::model_folder& folder, const quantization_plan& plan, const io::run_folder& run,
                 std::uintmax_t states_bytes);

/// The description with what it was calibrated with.
io::quantization_config described(io::quantization_config config, const token_windows& windows);

/// One pass over the numbers of all tensors that the model reads. Throws non_finite_error naming the tensor and the
/// place, and what scale_check throws.
void check_numbers(const model_config& config, const io::model_folder& folder, const quantization_plan& plan);

}  // namespace detail

/// Bytes of memory that this process may still take: what the system has free or can free, with swap, and less where a
/// control group allows less. Infinity where the system does not say.
double available_memory();

/// The bytes that quantize_model takes, within about a fifth.
struct memory_estimate {
    double fixed = 0.0;      ///< the embedding, a block in float, Hessians and their factors
    double per_token = 0.0;  ///< of calibration text that is kept: its states and what a block computes from them
    double states = 0.0;     ///< of a token's states alone

    /// Where nothing is computed twice.
    double total(std::size_t tokens) const { return fixed + per_token * static_cast<double>(tokens); }
};

memory_estimate estimate_memory(const model_config& c, const quantization_plan& plan, bool beside_float_model);

/// What a run does with the memory that it may take.
struct memory_use {
    chunk_places places;
    std::uintmax_t file_bytes = 0;  ///< of states that no memory holds
    std::string warning;            ///< "" where all is kept in memory
};

/// Places `tokens` of calibration text, in chunks of `chunk` tokens, within `budget` bytes; `asked` tells whether
/// somebody asked for this budget, or the system has no more. Throws error where even one chunk does not fit: within
/// what was asked for, or within half as much again as the system has.
memory_use plan_memory(const memory_estimate& estimate, std::size_t tokens, std::size_t chunk, double budget,
                       bool asked);

namespace detail {

/// What the user should know before the work: of the plan and of the windows.
std::vector<std::string> run_warnings(const io::model_folder& folder, const model_config& config,
                                      const quantization_plan& plan, const token_windows& windows);

}  // namespace detail

}  // namespace gptq::model

#ifndef GPTQ_COMPILED
#include <gptq/model/impl/quantize_checks.hpp>
#endif
