// Work in parallel, where the user's build has OpenMP.
#pragma once

#include <algorithm>
#include <cstddef>
#include <exception>

#ifdef _OPENMP
#include <omp.h>
#endif

namespace gptq::kernels {

/// How many threads OpenMP would take if it were not told; 1 without OpenMP.
inline std::size_t default_threads() {
#ifdef _OPENMP
    return static_cast<std::size_t>(omp_get_max_threads());
#else
    return 1;
#endif
}

/// f(first, last) for parts that make up [0, count), one part a thread. What a part throws is thrown here, once all
/// have ended.
template <class F>
void in_parallel(std::size_t count, [[maybe_unused]] std::size_t threads, const F& f) {
#ifdef _OPENMP
    if (threads > 1 && count > 1) {
        std::exception_ptr failure;
#pragma omp parallel num_threads(static_cast <int>(threads))
        {
            const auto part = static_cast<std::size_t>(omp_get_thread_num());
            const auto parts = static_cast<std::size_t>(omp_get_num_threads());
            try {
                f(count * part / parts, count * (part + 1) / parts);
            } catch (...) {
#pragma omp critical(gptq_in_parallel)
                failure = std::current_exception();
            }
        }
        if (failure) std::rethrow_exception(failure);
        return;
    }
#endif
    f(std::size_t{0}, count);
}

}  // namespace gptq::kernels
