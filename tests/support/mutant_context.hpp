// Host contexts with one fault each: kernels that run on them must fail a test, or tests could not see such a fault.
#pragma once

#include <cstddef>
#include <utility>

#include <gptq/backends/cuda/host_context.hpp>

namespace gptq_test {

/// A barrier that does not wait.
struct without_barrier : gptq::cuda::host_context {
    using host_context::host_context;
    void barrier() {}
};

/// A barrier of warps that does not wait.
struct without_warp_barrier : gptq::cuda::host_context {
    using host_context::host_context;
    void warp_barrier() {}
};

/// Waits that leave one batch more under way than they were told to.
struct with_loose_waits : gptq::cuda::host_context {
    using host_context::host_context;
    template <std::size_t Newest>
    void wait_copies() {
        host_context::wait_copies<Newest + 1>();
    }
};

/// Two registers of fragment A in each other's place.
struct with_swapped_weights : gptq::cuda::host_context {
    using host_context::host_context;
    template <class T>
    void mma_16x8x16(gptq::cuda::accumulators& c, gptq::cuda::fragment_a a, const gptq::cuda::fragment_b& b) {
        std::swap(a[1], a[2]);
        host_context::mma_16x8x16<T>(c, a, b);
    }
};

/// Two matrices loaded in each other's place.
struct with_swapped_inputs : gptq::cuda::host_context {
    using host_context::host_context;
    template <class Row>
    gptq::cuda::fragment_a load_matrix_x4(Row row) {
        auto loaded = host_context::load_matrix_x4(row);
        std::swap(loaded[1], loaded[2]);
        return loaded;
    }
};

/// Shuffles from the lane next to the one that was asked for.
struct with_shifted_shuffles : gptq::cuda::host_context {
    using host_context::host_context;
    template <class T>
    T shuffle(T value, std::size_t lane) {
        return host_context::shuffle(value, (lane + 1) % gptq::cuda::warp_size);
    }
};

static_assert(gptq::cuda::kernel_context<without_barrier> && gptq::cuda::kernel_context<without_warp_barrier> &&
              gptq::cuda::kernel_context<with_loose_waits> && gptq::cuda::kernel_context<with_swapped_weights> &&
              gptq::cuda::kernel_context<with_swapped_inputs> && gptq::cuda::kernel_context<with_shifted_shuffles>);

}  // namespace gptq_test
