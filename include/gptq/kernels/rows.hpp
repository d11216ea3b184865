// Loops of anybody's, compiled for the machine at hand.
#pragma once

#include <cstddef>

#include <gptq/kernels/isa.hpp>

namespace gptq::kernels::portable {
#include <gptq/kernels/rows.inl>
}

#if defined(__x86_64__)

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma")
#endif
namespace gptq::kernels::avx2 {
#include <gptq/kernels/rows.inl>
}
#if defined(__clang__)
#pragma clang attribute pop
#pragma clang attribute push(__attribute__((target("avx2,fma,avx512f,avx512bw,avx512dq,avx512vl"))), \
                             apply_to = function)
#else
#pragma GCC pop_options
#pragma GCC push_options
#pragma GCC target("avx2,fma,avx512f,avx512bw,avx512dq,avx512vl")
#endif
namespace gptq::kernels::avx512 {
#include <gptq/kernels/rows.inl>
}
#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

#endif

namespace gptq::kernels {

/// f(r) for r in [first, last), compiled for `which`, which the machine has, or for the best set below it that gains from
/// more than the compiler's usual target.
template <class F>
void run_rows([[maybe_unused]] isa which, const F& f, std::size_t first, std::size_t last) {
#if defined(__x86_64__)
    if (which >= isa::avx512) return avx512::run_rows(f, first, last);
    if (which >= isa::avx2) return avx2::run_rows(f, first, last);
#endif
    portable::run_rows(f, first, last);
}

}  // namespace gptq::kernels
