// gptq quantize on a GPU.
#include "cuda_of.hpp"
#include "device.hpp"
#include "quantize.hpp"

namespace program::on_gpu {

void quantize(const quantize_arguments& arguments) {
    with_gpu(arguments, gptq::cuda::held_form::dense, [&](const auto& gpu) {
        const auto run = [&](const io::model_folder& folder, const model::token_windows& windows,
                             const model::quantize_model_options& options, model::model_observer_ref observer) {
            return model::quantize_model(folder, arguments.out, windows, options, observer, gpu);
        };
        quantize_with(run, arguments);
    });
}

}  // namespace program::on_gpu
