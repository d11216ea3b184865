// The GPU and the numbers that --device and --compute-dtype ask for.
#pragma once

#include <stdexcept>
#include <string>

#include <gptq/cuda_model.hpp>
#include <gptq/error.hpp>
#include <gptq/io/dtype.hpp>
#include <gptq/io/model_folder.hpp>
#include <gptq/model/model_config.hpp>

#include "commands.hpp"

namespace program {

/// The numbers that most of a model's weights are stored in, of those that a GPU computes with.
inline std::string stored_dtype(const gptq::io::model_folder& folder) {
    const auto config = gptq::model::read_model_config(folder);
    const std::string embedding = std::string(config.arch.names.embedding) + ".weight";
    const std::string head = std::string(config.arch.names.head) + ".weight";
    switch (folder.tensor(folder.contains(embedding) ? embedding : head).dtype) {
        case gptq::io::dtype::f16: return "half";
        case gptq::io::dtype::bf16: return "bfloat16";
        default: return "float";
    }
}

/// f(backend)
template <class F>
void with_gpu(const compute_arguments& arguments, gptq::cuda::held_form form, const F& f) {
    const std::string prefix = "cuda:";
    gptq::cuda_options options;
    if (arguments.device.starts_with(prefix)) options.device = std::stoi(arguments.device.substr(prefix.size()));
    if (options.device >= gptq::cuda::device_count())
        throw gptq::cuda_error("--device " + arguments.device + ": this machine has " +
                               std::to_string(gptq::cuda::device_count()) + " GPUs that CUDA can use");
    const std::string dtype = arguments.compute_dtype != "auto" ? arguments.compute_dtype
                                                                : stored_dtype(gptq::io::model_folder(arguments.model));
    if (dtype == "half") return f(gptq::cuda_model_backend<gptq::half>(options, form));
    if (dtype == "bfloat16") return f(gptq::cuda_model_backend<gptq::bfloat16>(options, form));
    f(gptq::cuda_model_backend<float>(options, form));
}

}  // namespace program
