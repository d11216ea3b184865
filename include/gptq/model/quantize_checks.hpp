// What can go wrong in hours of work and is known before: numbers in the weights that no checkpoint can hold, and the
// memory that the work takes.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include <gptq/io/model_folder.hpp>
#include <gptq/io/quantization_config.hpp>
#include <gptq/io/run_folder.hpp>
#include <gptq/matrix_view.hpp>
#include <gptq/model/calibration.hpp>
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

/// Refuses a disk that cannot hold the finished blocks of a run and its result at once, before the work rather than after
/// it, and files to carry along that cannot be opened. Throws io_error.
void check_space(const io::model_folder& folder, const quantization_plan& plan, const io::run_folder& run);

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
    double per_token = 0.0;  ///< of calibration text: its states and what a block computes from them
    double fixed = 0.0;      ///< the embedding, a block in float, Hessians and their factors
    double total(std::size_t tokens) const { return fixed + per_token * static_cast<double>(tokens); }
};

memory_estimate estimate_memory(const model_config& c, const quantization_plan& plan, bool beside_float_model);

namespace detail {

/// How a run of `tokens` compares with the memory there is; "" where it fits. Throws error where it is far beyond: half
/// as much again.
std::string memory_warning(const memory_estimate& estimate, const token_windows& windows, double available);

/// What the user should know before the work: of the plan, of the windows, and of the memory where that is the host's.
std::vector<std::string> run_warnings(const io::model_folder& folder, const model_config& config,
                                      const quantization_plan& plan, const io::quantization_config& wanted,
                                      const token_windows& windows, bool in_host_memory);

}  // namespace detail

}  // namespace gptq::model

#ifndef GPTQ_COMPILED
#include <gptq/model/impl/quantize_checks.hpp>
#endif
