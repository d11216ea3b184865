// Kernels on a GPU: every function of kernel_context as one instruction of PTX. For nvcc, sm_80 or later, with
// --expt-relaxed-constexpr.
#pragma once

#include <cuda_runtime.h>

#include <array>
#include <bit>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <string>

#include <gptq/backends/cuda/context.hpp>
#include <gptq/backends/cuda/error.hpp>
#include <gptq/error.hpp>
#include <gptq/half.hpp>

namespace gptq::cuda {

/// One thread of a kernel on a device; a model of kernel_context, which says what the functions do.
class device_context {
 public:
    __device__ explicit device_context(char* shared) : shared_(shared) {}

    __device__ std::size_t thread() const { return threadIdx.x; }
    __device__ std::size_t threads() const { return blockDim.x; }
    __device__ std::size_t warp() const { return threadIdx.x / warp_size; }
    __device__ std::size_t lane() const { return threadIdx.x % warp_size; }
    __device__ std::size_t block() const { return blockIdx.x; }
    __device__ std::size_t blocks() const { return gridDim.x; }

    __device__ void barrier() const { __syncthreads(); }
    __device__ void warp_barrier() const { __syncwarp(); }

    template <class T>
    __device__ T* shared(std::size_t offset, std::size_t /*count*/) const {
        return reinterpret_cast<T*>(shared_ + offset);
    }

    /// Past the first-level cache: what is copied so is read once by a block.
    template <std::size_t Bytes, class T>
    __device__ void copy_async(T* to, const void* from, std::size_t valid) const {
        static_assert(Bytes == 16);
        asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(to)), "l"(from),
                     "r"(static_cast<unsigned>(valid))
                     : "memory");
    }
    __device__ void commit_copies() const { asm volatile("cp.async.commit_group;" ::: "memory"); }
    template <std::size_t Newest>
    __device__ void wait_copies() const {
        asm volatile("cp.async.wait_group %0;" ::"n"(Newest) : "memory");
    }

    template <class T>
    __device__ T shuffle(T value, std::size_t lane) const {
        return __shfl_sync(0xffffffffu, value, static_cast<int>(lane));
    }
    template <class T>
    __device__ T shuffle_xor(T value, std::size_t mask) const {
        return __shfl_xor_sync(0xffffffffu, value, static_cast<int>(mask));
    }

    template <class T>
    __device__ fragment_a load_matrix_x4(const T* row) const {
        fragment_a r;
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                     : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                     : "r"(shared_address(row))
                     : "memory");
        return r;
    }
    template <class T>
    __device__ fragment_a load_matrix_x4_transposed(const T* row) const {
        fragment_a r;
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                     : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                     : "r"(shared_address(row))
                     : "memory");
        return r;
    }

    template <tensor_element T>
    __device__ void mma_16x8x16(accumulators& c, const fragment_a& a, const fragment_b& b) const {
        if constexpr (std::same_as<T, half>)
            asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "
                "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
        else
            asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
                "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
    }

    /// Mask and base from registers: an instruction takes one constant of its own, and ptxas makes two instructions
    /// where both are constants.
    __device__ std::uint32_t put_bits(std::uint32_t a, std::uint32_t mask, std::uint32_t base) const {
        std::uint32_t r;
        asm("lop3.b32 %0, %1, %2, %3, 0xea;" : "=r"(r) : "r"(a), "r"(mask), "r"(base));
        return r;
    }
    template <tensor_element T>
    __device__ std::uint32_t fma_pairs(std::uint32_t a, std::uint32_t b, std::uint32_t c) const {
        std::uint32_t r;
        if constexpr (std::same_as<T, half>)
            asm("fma.rn.f16x2 %0, %1, %2, %3;" : "=r"(r) : "r"(a), "r"(b), "r"(c));
        else
            asm("fma.rn.bf16x2 %0, %1, %2, %3;" : "=r"(r) : "r"(a), "r"(b), "r"(c));
        return r;
    }
    template <tensor_element T>
    __device__ std::uint32_t narrow_pair(float low, float high) const {
        std::uint32_t r;
        if constexpr (std::same_as<T, half>)
            asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(high), "f"(low));
        else
            asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(high), "f"(low));
        return r;
    }
    __device__ float widen(half x) const {
        float r;
        asm("cvt.f32.f16 %0, %1;" : "=f"(r) : "h"(x.bits));
        return r;
    }
    __device__ float widen(bfloat16 x) const { return to_float(x); }

 private:
    /// What instructions call an address within shared memory.
    __device__ static unsigned shared_address(const void* pointer) {
        return static_cast<unsigned>(__cvta_generic_to_shared(pointer));
    }

    char* shared_;
};

static_assert(kernel_context<device_context>);

namespace detail {

/// The one kernel: it runs a body. Body::block_threads, of every launch, is what the compiler may count on. Where not
/// told how many blocks a multiprocessor should have (1), ptxas spills registers to fit in one more.
template <class Body>
__global__ void __launch_bounds__(Body::block_threads, 1) run_kernel(const __grid_constant__ Body body) {
    extern __shared__ uint4 shared_memory[];
    device_context context(reinterpret_cast<char*>(shared_memory));
    body(context);
}

}  // namespace detail

/// Begins to run `body`, a kernel, on the current device; returns before it is done. Throws shape_error for a launch
/// that no device accepts, and cuda_error with the runtime's reason where this one does not.
template <class Body>
void device_launch(const launch_shape& shape, cudaStream_t stream, const Body& body) {
    check_launch(shape);
    if (shape.threads != Body::block_threads)
        throw shape_error("launch of " + std::to_string(shape.threads) + " threads a block: this kernel has " +
                          std::to_string(Body::block_threads));
    const auto kernel = detail::run_kernel<Body>;
    constexpr std::size_t unasked = 48 * 1024;  // what every kernel may have
    if (shape.shared_bytes > unasked)
        check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                   static_cast<int>(shape.shared_bytes)),
              "launch of a kernel: cudaFuncSetAttribute");
    kernel<<<static_cast<unsigned>(shape.blocks), static_cast<unsigned>(shape.threads), shape.shared_bytes, stream>>>(
        body);
    check(cudaGetLastError(), "launch of a kernel");
}

/// Launches kernels on a stream of the current device.
struct device_launcher {
    cudaStream_t stream = nullptr;
    template <class Body>
    void operator()(const launch_shape& shape, const Body& body) const {
        device_launch(shape, stream, body);
    }
};

}  // namespace gptq::cuda
