// Matrices in a device's memory, from a pool of their own.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
#include <string>
#include <type_traits>
#include <utility>

#include <cuda_runtime.h>

#include <gptq/backends/cuda/error.hpp>
#include <gptq/backends/cuda/handle.hpp>
#include <gptq/backends/cuda/stream.hpp>
#include <gptq/error.hpp>
#include <gptq/matrix_view.hpp>

namespace gptq::cuda {

/// Memory of one device that is handed out and taken back in the order of one stream. What is taken back stays in the
/// pool, so that the solver's loop does not ask the driver for memory again and again.
class memory_pool {
 public:
    /// Throws cuda_error where the device has no such pools.
    memory_pool(int device, cudaStream_t stream) : device_(device), stream_(stream) {
        cudaMemPoolProps properties{};
        properties.allocType = cudaMemAllocationTypePinned;
        properties.location.type = cudaMemLocationTypeDevice;
        properties.location.id = device;
        cudaMemPool_t made = nullptr;
        check(cudaMemPoolCreate(&made, &properties), "cudaMemPoolCreate");
        handle_.reset(made);
        std::uint64_t keep = std::numeric_limits<std::uint64_t>::max();
        check(cudaMemPoolSetAttribute(made, cudaMemPoolAttrReleaseThreshold, &keep), "cudaMemPoolSetAttribute");
    }

    int device() const { return device_; }
    cudaStream_t stream() const { return stream_; }

    /// Throws cuda_error where the device has no memory left.
    void* allocate(std::size_t bytes) const {
        void* memory = nullptr;
        const device_scope scope(device_);
        const cudaError_t status = cudaMallocFromPoolAsync(&memory, bytes, handle_.get(), stream_);
        if (status == cudaErrorMemoryAllocation) fail(bytes);
        check(status, "cudaMallocFromPoolAsync");
        return memory;
    }

 private:
    [[noreturn]] static void fail(std::size_t bytes) {
        std::size_t available = 0, total = 0;
        cudaGetLastError();  // else the next call reports this one
        check(cudaMemGetInfo(&available, &total), "cudaMemGetInfo");
        throw cuda_error("out of device memory: " + std::to_string(bytes) + " bytes were asked for, and " +
                         std::to_string(available) + " of " + std::to_string(total) +
                         " are left; use fewer or shorter windows, numbers of 16 bits, or a larger device");
    }

    int device_;
    cudaStream_t stream_;
    unique_handle<cudaMemPool_t, cudaMemPoolDestroy> handle_;
};

/// An owning row-major matrix in device memory, without padding. It goes back to the pool, which it keeps alive, once
/// the work that was started before its end is done.
template <class T>
class device_matrix {
 public:
    device_matrix() = default;

    /// Elements are not set. Throws cuda_error where memory is exhausted.
    device_matrix(std::shared_ptr<const memory_pool> pool, std::size_t rows, std::size_t cols)
        : elements_(nullptr, release{pool}), rows_(rows), cols_(cols) {
        if (bytes() != 0) elements_.reset(static_cast<T*>(pool->allocate(bytes())));
    }

    matrix_view<T> view() { return {elements_.get(), rows_, cols_}; }
    matrix_view<const T> view() const { return {elements_.get(), rows_, cols_}; }
    std::size_t bytes() const { return rows_ * cols_ * sizeof(T); }

 private:
    struct release {
        std::shared_ptr<const memory_pool> pool;
        void operator()(T* elements) const {
            if (elements != nullptr) cudaFreeAsync(elements, pool->stream());
        }
    };
    std::unique_ptr<T, release> elements_;
    std::size_t rows_ = 0;
    std::size_t cols_ = 0;
};

/// Copies `from` to `to`, one of which, or both, lie in device memory, and waits until it is done. Throws shape_error
/// where the shapes differ, cuda_error where this or earlier work in the stream failed.
template <class T>
void copy(matrix_view<const std::type_identity_t<T>> from, matrix_view<T> to, cudaStream_t stream) {
    if (from.rows != to.rows || from.cols != to.cols)
        throw shape_error("download: " + shape_string(from.rows, from.cols) + " into " +
                          shape_string(to.rows, to.cols));
    if (from.rows != 0 && from.cols != 0)
        check(cudaMemcpy2DAsync(to.data, to.ld * sizeof(T), from.data, from.ld * sizeof(T), from.cols * sizeof(T),
                                from.rows, cudaMemcpyDefault, stream),
              "cudaMemcpy2DAsync");
    check(cudaStreamSynchronize(stream), "cudaStreamSynchronize");
}

}  // namespace gptq::cuda
