// The one header for code that nvcc compiles and that runs whole models on a GPU:
//
//     gptq::cuda_model_backend<gptq::bfloat16> gpu;
//     auto model = gptq::model::basic_decoder<decltype(gpu)>::load(folder, gpu);
//     gptq::model::evaluate_perplexity(model, tokens);
//     gptq::model::quantize_model(folder, out, windows, options, observer, gpu);
//
// Link with gptq::cuda and gptq::model.
#pragma once

#include <gptq/backends/cuda/cuda_backend.hpp>
#include <gptq/backends/cuda/model_backend.hpp>
#include <gptq/model.hpp>
#include <gptq/model/model_quantizer.hpp>

namespace gptq {

/// Whole models on a GPU, T (float, half or bfloat16) being what linear layers read and write. Copies share the handles
/// of the libraries. Throws cuda_error where the device is missing.
template <class T = bfloat16>
class cuda_model_backend : public cuda::basic_model_backend<T, cuda::device_machine> {
    using base = cuda::basic_model_backend<T, cuda::device_machine>;

 public:
    explicit cuda_model_backend(const cuda_options& options = {}, cuda::held_form form = cuda::held_form::codes)
        : base(cuda::device_machine(options), form) {}
};

}  // namespace gptq
