// The bodies of <gptq/model/quantize_model.hpp> that are no templates.
#pragma once

#include <cstddef>
#include <filesystem>
#include <string>

#include <gptq/backends/cpu/model_backend.hpp>
#include <gptq/compiled.hpp>
#include <gptq/io/model_folder.hpp>
#include <gptq/model/calibration.hpp>
#include <gptq/model/model_quantizer.hpp>
#include <gptq/model/quantize_log.hpp>
#include <gptq/model/quantize_model.hpp>
#include <gptq/model/quantize_plan.hpp>

namespace gptq::model {

GPTQ_INLINE void model_observer_ref::on_progress(double fraction, const std::string& doing) const {
    if (observer_ != nullptr) on_progress_(observer_, fraction, doing);
}

GPTQ_INLINE void model_observer_ref::on_module(const module_record& record) const {
    if (observer_ != nullptr) on_module_(observer_, record);
}

GPTQ_INLINE void model_observer_ref::on_columns(std::size_t done, std::size_t total) const {
    if (observer_ != nullptr) on_columns_(observer_, done, total);
}

GPTQ_INLINE void model_observer_ref::on_warning(const std::string& warning) const {
    if (observer_ != nullptr) on_warning_(observer_, warning);
}

GPTQ_INLINE quantize_result quantize_model(const io::model_folder& folder, const std::filesystem::path& out,
                                           const token_windows& windows, const quantize_model_options& options,
                                           model_observer_ref observer) {
    return quantize_model(folder, out, windows, options, observer, cpu_model_backend(quantized_form::dense));
}

}  // namespace gptq::model
