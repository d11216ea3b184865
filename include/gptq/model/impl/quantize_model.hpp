// The bodies of <gptq/model/quantize_model.hpp> that are no templates.
#pragma once

#include <filesystem>

#include <gptq/backends/cpu/model_backend.hpp>
#include <gptq/compiled.hpp>
#include <gptq/io/model_folder.hpp>
#include <gptq/model/calibration.hpp>
#include <gptq/model/model_quantizer.hpp>
#include <gptq/model/quantize_log.hpp>
#include <gptq/model/quantize_model.hpp>
#include <gptq/model/quantize_plan.hpp>

namespace gptq::model {

GPTQ_INLINE quantize_result quantize_model(const io::model_folder& folder, const std::filesystem::path& out,
                                           const token_windows& windows, const quantize_model_options& options,
                                           model_observer_ref observer) {
    return quantize_model(folder, out, windows, options, observer, cpu_model_backend(quantized_form::dense));
}

}  // namespace gptq::model
