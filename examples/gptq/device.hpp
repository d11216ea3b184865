// Which device a subcommand computes on: the one place where --device chooses code.
#pragma once

#include <string>

#include <gptq/error.hpp>

#include "commands.hpp"

namespace program {

/// The subcommands on a GPU. cuda_run.cu and cuda_quantize.cu have the bodies, in builds with CUDA.
namespace on_gpu {

void quantize(const quantize_arguments& arguments);
void eval(const eval_arguments& arguments);
void generate(const generate_arguments& arguments);
void bench(const bench_arguments& arguments);

}  // namespace on_gpu

/// Calls on_gpu() or on_cpu(). Throws unsupported_error for a GPU where the build has no CUDA.
template <class OnGpu, class OnCpu>
void choose_device(const compute_arguments& arguments, [[maybe_unused]] const OnGpu& on_gpu, const OnCpu& on_cpu) {
    if (arguments.device == "cpu") return on_cpu();
#ifdef GPTQ_PROGRAM_HAS_CUDA
    on_gpu();
#else
    throw gptq::unsupported_error("--device " + arguments.device +
                                  ": this program was built without CUDA; build it with "
                                  "cmake --preset cuda && cmake --build --preset cuda --target gptq_program");
#endif
}

}  // namespace program
