// Runs a functor over rows in a function that is compiled for the processor's instruction set.
#pragma once

#include <cstddef>

#include <gptq/kernels/isa.hpp>

namespace gptq::kernels {

namespace portable {
template <class F>
__attribute__((flatten)) inline void run_rows(const F& f, std::size_t first, std::size_t last) {
    for (std::size_t r = first; r < last; ++r) f(r);
}
}  // namespace portable

#if defined(__x86_64__)
namespace avx2 {
template <class F>
__attribute__((target("avx2,fma"), flatten)) inline void run_rows(const F& f, std::size_t first, std::size_t last) {
    for (std::size_t r = first; r < last; ++r) f(r);
}
}  // namespace avx2

namespace avx512 {
template <class F>
__attribute__((target("avx2,fma,avx512f,avx512bw,avx512dq,avx512vl"), flatten)) inline void run_rows(const F& f,
                                                                                                     std::size_t first,
                                                                                                     std::size_t last) {
    for (std::size_t r = first; r < last; ++r) f(r);
}
}  // namespace avx512
#endif

/// f(r) for r in [first, last), compiled for `which`, which the machine has, or for the best set below it that gains
/// from more than the compiler's usual target. All of f that the compiler can inline becomes code for this instruction
/// set; f itself is ordinary code, written so that compilers vectorize it. (Itself not flattened: clang would inline
/// those above.)
template <class F>
void run_rows([[maybe_unused]] isa which, const F& f, std::size_t first, std::size_t last) {
#if defined(__x86_64__)
    if (which >= isa::avx512) return avx512::run_rows(f, first, last);
    if (which >= isa::avx2) return avx2::run_rows(f, first, last);
#endif
    portable::run_rows(f, first, last);
}

}  // namespace gptq::kernels
