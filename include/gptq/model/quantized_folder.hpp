// The end of quantize_model: OUT is put together from the finished blocks and everything else in the source.
#pragma once

#include <cstddef>
#include <optional>
#include <string>

#include <gptq/io/model_folder.hpp>
#include <gptq/io/quantization_config.hpp>
#include <gptq/io/run_folder.hpp>
#include <gptq/model/quantize_log.hpp>
#include <gptq/model/quantize_plan.hpp>
#include <gptq/model/run_record.hpp>
#include <gptq/quantized.hpp>

namespace gptq::model::detail {

/// What the user should know about how a module was quantized.
std::optional<std::string> solver_warning(const std::string& module, const solve_report& report);

/// What the user should know about `inputs` inputs of experts that too few tokens came to.
std::string experts_warning(std::size_t inputs);

/// Writes OUT: the codes of the finished blocks, which are all blocks, and what was not quantized byte for byte. Then
/// nothing is left in the run's folder. Throws what io::folder_writer throws; then the run can be gone on with.
quantize_result write_result(const io::run_folder& run, const run_record& record, const io::model_folder& source,
                             const quantization_plan& plan, const io::quantization_config& config, bool own_head);

}  // namespace gptq::model::detail

#ifndef GPTQ_COMPILED
#include <gptq/model/impl/quantized_folder.hpp>
#endif
