// What CUDA and its libraries report, as exceptions of the library.
#pragma once

#include <string>

#include <cublas_v2.h>
#include <cuda_runtime.h>
#include <cusolverDn.h>

#include <gptq/error.hpp>

namespace gptq {

/// CUDA, cuBLAS or cuSOLVER refused a call, or a kernel that was started earlier failed; the message names the call and
/// carries the reason.
class cuda_error : public error {
 public:
    using error::error;
};

namespace cuda {

/// Throws cuda_error unless `status` is success. `call` is the name of the function that returned it.
inline void check(cudaError_t status, const char* call) {
    if (status == cudaSuccess) return;
    throw cuda_error(std::string(call) + ": " + cudaGetErrorString(status) + " (" + cudaGetErrorName(status) + ")");
}

inline void check(cublasStatus_t status, const char* call) {
    if (status == CUBLAS_STATUS_SUCCESS) return;
    throw cuda_error(std::string(call) + ": " + cublasGetStatusString(status));
}

inline void check(cusolverStatus_t status, const char* call) {
    if (status == CUSOLVER_STATUS_SUCCESS) return;
    throw cuda_error(std::string(call) + ": cuSOLVER status " + std::to_string(static_cast<int>(status)));
}

}  // namespace cuda
}  // namespace gptq
