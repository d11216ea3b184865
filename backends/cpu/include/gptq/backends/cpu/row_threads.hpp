// Rows shared out to threads of the CPU backend.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <exception>
#include <mutex>
#include <system_error>
#include <thread>
#include <vector>

#include <gptq/kernels/threads.hpp>

namespace gptq::detail {

/// Some work on the rows [first, last), without its type: threads are compiled once, not once for each row operation.
struct row_work {
    const void* work;
    void (*call)(const void* work, std::size_t first, std::size_t last);
};

/// work.call(first, last) for parts that make up [0, n), by as many threads as kernels::default_threads() says. A thread
/// that is through with a part takes the next: the BLAS's threads still spin for a while after its calls, and slow some
/// down.
///
/// What a part throws is thrown here, once all have ended. The threads end with the call. OpenMP's would wait actively for some milliseconds after it, and the BLAS, which has
/// threads of its own and comes next, would get no processor: that made layers of 1024 x 1024 take five times as long.
inline void share_rows(std::size_t n, row_work work) {
    constexpr std::size_t least_rows = 16, parts_a_thread = 8;
    const std::size_t threads = std::min(n / least_rows, kernels::default_threads());
    if (threads <= 1) return work.call(work.work, 0, n);
    const std::size_t rows = std::max(n / (threads * parts_a_thread) / least_rows, std::size_t{1}) * least_rows;
    std::atomic<std::size_t> next = 0;
    std::exception_ptr failure;
    std::mutex failing;
    const auto take_parts = [&] {
        try {
            for (std::size_t first = next.fetch_add(rows); first < n; first = next.fetch_add(rows))
                work.call(work.work, first, std::min(first + rows, n));
        } catch (...) {
            const std::lock_guard lock(failing);
            failure = std::current_exception();
        }
    };
    std::vector<std::jthread> others;
    others.reserve(threads - 1);
    try {
        while (others.size() + 1 < threads) others.emplace_back(take_parts);
    } catch (const std::system_error&) {
        // No more threads to be had: those that there are do it all.
    }
    take_parts();
    others.clear();  // waits for them
    if (failure) std::rethrow_exception(failure);
}

/// f(first, last) for parts that make up [0, n), shared out to threads.
template <class F>
void on_row_threads(std::size_t n, const F& f) {
    share_rows(n, {&f, [](const void* work, std::size_t first, std::size_t last) {
                       (*static_cast<const F*>(work))(first, last);
                   }});
}

}  // namespace gptq::detail
