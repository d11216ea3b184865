#include "quantize.hpp"

#include <gptq/model/quantize_from_hessians.hpp>

#include "device.hpp"

namespace program {

void quantize(const quantize_arguments& arguments) {
    const auto from_hessians = [&](const io::model_folder& folder, const model::quantize_model_options& options,
                                   model::model_observer_ref observer) {
        return model::quantize_from_hessians(folder, arguments.out, arguments.hessians, options, observer);
    };
    if (!arguments.hessians.empty()) return run_and_report(from_hessians, arguments, "");
    const auto on_cpu = [&](const io::model_folder& folder, const model::token_windows& windows,
                            const model::quantize_model_options& options, model::model_observer_ref observer) {
        return model::quantize_model(folder, arguments.out, windows, options, observer);
    };
    choose_device(
        arguments, [&] { on_gpu::quantize(arguments); }, [&] { quantize_with(on_cpu, arguments); });
}

}  // namespace program
