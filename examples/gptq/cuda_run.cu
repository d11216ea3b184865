// The subcommands that run a model, on a GPU.
#include "bench.hpp"
#include "cuda_of.hpp"
#include "device.hpp"
#include "eval.hpp"
#include "generate.hpp"

namespace program::on_gpu {

void eval(const eval_arguments& arguments) {
    with_gpu(arguments, gptq::cuda::held_form::codes, [&](const auto& gpu) { eval_on(gpu, arguments); });
}

void generate(const generate_arguments& arguments) {
    with_gpu(arguments, gptq::cuda::held_form::codes, [&](const auto& gpu) { generate_on(gpu, arguments); });
}

void bench(const bench_arguments& arguments) {
    with_gpu(arguments, gptq::cuda::held_form::codes, [&](const auto& gpu) { bench_on(gpu, arguments); });
}

}  // namespace program::on_gpu
