// The bodies of <gptq/model/quantized_folder.hpp>.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <unordered_set>

#include <gptq/compiled.hpp>
#include <gptq/io/folder_writer.hpp>
#include <gptq/io/model_folder.hpp>
#include <gptq/io/quantization_config.hpp>
#include <gptq/io/quantized_tensors.hpp>
#include <gptq/io/run_folder.hpp>
#include <gptq/model/quantize_log.hpp>
#include <gptq/model/quantize_plan.hpp>
#include <gptq/model/quantized_folder.hpp>
#include <gptq/model/run_record.hpp>
#include <gptq/model/stage_statistics.hpp>
#include <gptq/quantized.hpp>

namespace gptq::model::detail {

GPTQ_INLINE std::optional<std::string> solver_warning(const std::string& module, const solve_report& report) {
    if (report.rounded_to_nearest && report.dead_inputs > 0)
        return module + ": rounded to nearest, no calibration token reached it";
    if (report.rounded_to_nearest && report.failed_factorizations == 0)
        return module + ": rounded to nearest, which loses less than what the solver found";
    if (report.rounded_to_nearest)
        return module + ": rounded to nearest, no damping made its Hessian positive definite";
    if (report.failed_factorizations == 0) return std::nullopt;
    return module + ": its Hessian needed a damping of " + number_string(report.damp_percent) + "; " +
           std::to_string(report.failed_factorizations) + " smaller ones did not do";
}

GPTQ_INLINE std::string experts_warning(std::size_t inputs) {
    return std::to_string(inputs) + " inputs of experts saw fewer than " + std::to_string(enough_tokens_per_input) +
           " tokens for each feature, and were filled up from all tokens of their blocks; " +
           std::string(quant_log_name) + " has the tokens of each, under samples";
}

/// Weights that codes replace.
inline std::unordered_set<std::string> replaced_tensors(const quantization_plan& plan) {
    std::unordered_set<std::string> replaced;
    for (const stage_plan& stage : plan.stages)
        for (const module_plan& module : stage.modules)
            if (stage.settings) replaced.insert(module.name + std::string(weight_suffix));
    return replaced;
}

/// Everything else that `written` does not have, byte for byte. Returns the bytes of what it has, which are those of
/// norms and biases that scales were folded into.
inline std::uint64_t copy_other_tensors(const io::model_folder& source, const quantization_plan& plan,
                                        const std::unordered_set<std::string>& written, io::folder_writer& writer) {
    const std::unordered_set<std::string> replaced = replaced_tensors(plan);
    std::uint64_t folded = 0;
    for (const std::string& name : source.tensor_names()) {
        if (replaced.contains(name)) continue;
        if (written.contains(name))
            folded += source.tensor(name).bytes.size();
        else
            writer.copy_tensor(source.tensor(name));
    }
    return folded;
}

inline double quantized_weights(const quantization_plan& plan) {
    double weights = 0.0;
    for (const stage_plan& stage : plan.stages)
        if (stage.settings) weights += static_cast<double>(stage.weights());
    return weights;
}

GPTQ_INLINE quantize_result write_result(const io::run_folder& run, const run_record& record,
                                         const io::model_folder& source, const quantization_plan& plan,
                                         const io::quantization_config& config, bool own_head) {
    quantize_result result{record.notes().modules, record.notes().warnings};
    if (const std::size_t lacking = record.notes().experts_lacking; lacking != 0)
        result.warnings.push_back(experts_warning(lacking));
    io::folder_writer writer(run.out(), run.result());
    const std::unordered_set<std::string> written = record.copy_to(writer);
    const std::uint64_t of_pieces = writer.tensor_bytes();
    const std::uint64_t folded = copy_other_tensors(source, plan, written, writer);
    if (const double weights = quantized_weights(plan); weights > 0.0)
        result.bits_per_weight = 8.0 * static_cast<double>(of_pieces - folded) / weights;
    result.bytes = writer.tensor_bytes();
    io::write_configs(writer, source, config, own_head);
    writer.write_text(std::string(quant_log_name), quant_log(result.modules));
    for (const std::filesystem::path& file : source.companion_files()) writer.copy_file(file);
    writer.finish();
    run.clear();
    return result;
}

}  // namespace gptq::model::detail
