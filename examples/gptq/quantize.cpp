#include "quantize.hpp"

#include "device.hpp"

namespace program {

void quantize(const quantize_arguments& arguments) {
    const auto on_cpu = [&](const io::model_folder& folder, const model::token_windows& windows,
                            const model::quantize_model_options& options, model::model_observer_ref observer) {
        return model::quantize_model(folder, arguments.out, windows, options, observer);
    };
    choose_device(
        arguments, [&] { on_gpu::quantize(arguments); }, [&] { quantize_with(on_cpu, arguments); });
}

}  // namespace program
