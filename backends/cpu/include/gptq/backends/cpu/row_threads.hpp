// Rows shared out to threads of the CPU backend.
#pragma once

#include <cstddef>

#include <gptq/compiled.hpp>

namespace gptq::detail {

/// Some work on the rows [first, last), without its type: threads are compiled once, not once for each row operation.
struct row_work {
    const void* work;
    void (*call)(const void* work, std::size_t first, std::size_t last);
};

/// work.call(first, last) for parts that make up [0, n), by as many threads as kernels::default_threads() says. A
/// thread that is through with a part takes the next: the BLAS's threads still spin for a while after its calls, and
/// slow some down.
///
/// What a part throws is thrown here, once all have ended. The threads end with the call. OpenMP's would wait actively
/// for some milliseconds after it, and the BLAS, which has threads of its own and comes next, would get no processor:
/// that made layers of 1024 x 1024 take five times as long.
GPTQ_INLINE void share_rows(std::size_t n, row_work work);

/// f(first, last) for parts that make up [0, n), shared out to threads.
template <class F>
void on_row_threads(std::size_t n, const F& f) {
    share_rows(n, {&f, [](const void* work, std::size_t first, std::size_t last) {
                       (*static_cast<const F*>(work))(first, last);
                   }});
}

}  // namespace gptq::detail

#ifndef GPTQ_COMPILED
#include <gptq/backends/cpu/share_rows.hpp>
#endif
