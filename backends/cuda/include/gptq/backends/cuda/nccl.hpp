// Sums over several GPUs of one process by NCCL, for split_hessian::reduce. The only file that needs NCCL; link with
// it.
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <vector>

#include <nccl.h>

#include <gptq/backends/cuda/cuda_backend.hpp>
#include <gptq/backends/cuda/error.hpp>
#include <gptq/backends/cuda/stream.hpp>
#include <gptq/error.hpp>
#include <gptq/matrix_view.hpp>

namespace gptq::cuda {

inline void check(ncclResult_t status, const char* call) {
    if (status != ncclSuccess) throw cuda_error(std::string(call) + ": " + ncclGetErrorString(status));
}

/// One communicator a GPU. Serves matrices of the backends that it was made for, in their order.
class nccl_sum {
 public:
    /// Throws cuda_error where NCCL cannot connect the devices, or one is there twice.
    explicit nccl_sum(std::span<const cuda_backend> backends) : communicators_(backends.size()) {
        std::vector<int> devices;
        for (const cuda_backend& backend : backends) devices.push_back(backend.machine().device());
        check(ncclCommInitAll(communicators_.data(), static_cast<int>(devices.size()), devices.data()),
              "ncclCommInitAll");
    }
    nccl_sum(const nccl_sum&) = delete;
    nccl_sum& operator=(const nccl_sum&) = delete;
    ~nccl_sum() {
        for (const ncclComm_t communicator : communicators_) ncclCommDestroy(communicator);
    }

    /// Every parts[i], without padding in the memory of backends[i], becomes the sum of all.
    void operator()(std::span<const cuda_backend> backends, std::span<const matrix_view<float>> parts) const {
        if (backends.size() != communicators_.size() || parts.size() != communicators_.size())
            throw shape_error("nccl_sum: " + std::to_string(parts.size()) + " matrices for communicators of " +
                              std::to_string(communicators_.size()) + " GPUs");
        check(ncclGroupStart(), "ncclGroupStart");
        for (std::size_t i = 0; i < parts.size(); ++i) {
            const device_scope scope(backends[i].machine().device());
            check(ncclAllReduce(parts[i].data, parts[i].data, parts[i].rows * parts[i].cols, ncclFloat, ncclSum,
                                communicators_[i], backends[i].machine().stream()),
                  "ncclAllReduce");
        }
        check(ncclGroupEnd(), "ncclGroupEnd");
    }

 private:
    std::vector<ncclComm_t> communicators_;
};

}  // namespace gptq::cuda
