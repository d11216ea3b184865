// The one header for code that nvcc compiles: the library, and the CUDA backend.
//
//     gptq::cuda_backend gpu;
//     gptq::basic_hessian<gptq::cuda_backend> h(in_features, gpu);
//     h.add(X);
//     auto q = gptq::quantize<w4>(W, h, {}, gpu);
//
// Link with gptq::cuda, which brings cuBLAS, cuSOLVER and the option that lets kernels call the library's functions.
#pragma once

#include <gptq/backends/cuda/cuda_backend.hpp>
#include <gptq/gptq.hpp>
