// Which device calls go to, in which stream, and how long they take there.
#pragma once

#include <cuda_runtime.h>

#include <gptq/backends/cuda/error.hpp>
#include <gptq/backends/cuda/handle.hpp>

namespace gptq::cuda {

/// Makes `device` the calling thread's device for as long as it lives, then the one from before.
class device_scope {
 public:
    /// Throws cuda_error where there is no such device.
    explicit device_scope(int device) {
        check(cudaGetDevice(&before_), "cudaGetDevice");
        if (device != before_) check(cudaSetDevice(device), "cudaSetDevice");
    }
    device_scope(const device_scope&) = delete;
    device_scope& operator=(const device_scope&) = delete;
    ~device_scope() { cudaSetDevice(before_); }

 private:
    int before_ = 0;
};

/// The calling thread's device. Throws cuda_error where there is none.
inline int current_device() {
    int device = 0;
    check(cudaGetDevice(&device), "cudaGetDevice");
    return device;
}

/// How many devices there are; 0 also where no driver is installed.
inline int device_count() {
    int count = 0;
    return cudaGetDeviceCount(&count) == cudaSuccess ? count : 0;
}

/// A stream of one's own on the current device, which waits for no other.
class stream {
 public:
    stream() {
        cudaStream_t made = nullptr;
        check(cudaStreamCreateWithFlags(&made, cudaStreamNonBlocking), "cudaStreamCreateWithFlags");
        handle_.reset(made);
    }
    cudaStream_t get() const { return handle_.get(); }
    /// Waits for everything in it. Throws cuda_error where something failed.
    void synchronize() const { check(cudaStreamSynchronize(get()), "cudaStreamSynchronize"); }

 private:
    unique_handle<cudaStream_t, cudaStreamDestroy> handle_;
};

/// A point in a stream, on the current device; two of them tell the time between.
class event {
 public:
    event() {
        cudaEvent_t made = nullptr;
        check(cudaEventCreate(&made), "cudaEventCreate");
        handle_.reset(made);
    }
    void record(cudaStream_t in) { check(cudaEventRecord(handle_.get(), in), "cudaEventRecord"); }
    /// Seconds from `start` to here, for which it waits.
    double seconds_since(const event& start) const {
        float milliseconds = 0.0f;
        check(cudaEventSynchronize(handle_.get()), "cudaEventSynchronize");
        check(cudaEventElapsedTime(&milliseconds, start.handle_.get(), handle_.get()), "cudaEventElapsedTime");
        return 1e-3 * static_cast<double>(milliseconds);
    }

 private:
    unique_handle<cudaEvent_t, cudaEventDestroy> handle_;
};

}  // namespace gptq::cuda
