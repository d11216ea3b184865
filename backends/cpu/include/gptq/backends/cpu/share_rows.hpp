// The threads of row_threads.hpp, which includes this.
#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <exception>
#include <mutex>
#include <system_error>
#include <thread>
#include <vector>

#if defined(__linux__)
#include <pthread.h>
#include <sched.h>
#endif

#include <gptq/backends/cpu/row_threads.hpp>
#include <gptq/compiled.hpp>
#include <gptq/kernels/threads.hpp>

namespace gptq::detail {

/// Keeps another thread from the processor that the caller is on. To the scheduler, that is no busier than those on
/// which the BLAS's threads wait actively: started there, a thread would share it with the caller.
inline void keep_away([[maybe_unused]] std::jthread& other) {
#if defined(__linux__)
    cpu_set_t allowed;
    const int here = sched_getcpu();
    if (here < 0 || sched_getaffinity(0, sizeof allowed, &allowed) != 0 || CPU_COUNT(&allowed) < 2) return;
    CPU_CLR(here, &allowed);
    pthread_setaffinity_np(other.native_handle(), sizeof allowed, &allowed);
#endif
}

/// Does the first of n rows in the calling thread, and says how many are done: all of them where what is left would
/// take less time than starting a thread, taking them to be no longer than the first, or where there is one thread
/// only.
inline std::size_t do_first_rows(std::size_t n, std::size_t rows, std::size_t threads, row_work work) {
    using clock = std::chrono::steady_clock;
    constexpr std::chrono::duration<double> starting = std::chrono::microseconds(50);
    if (threads <= 1) rows = n;
    const auto begin = clock::now();
    work.call(work.work, 0, rows);
    const auto left = (clock::now() - begin) * (static_cast<double>(n - rows) / static_cast<double>(rows));
    if (left >= starting || rows == n) return rows;
    work.call(work.work, rows, n);
    return n;
}

GPTQ_INLINE void share_rows(std::size_t n, row_work work) {
    constexpr std::size_t least_rows = 16, parts_a_thread = 8;
    const std::size_t threads = std::min(n / least_rows, kernels::default_threads());
    const std::size_t done = do_first_rows(n, std::min(n, least_rows), threads, work);
    if (done == n) return;
    const std::size_t rows = std::max(n / (threads * parts_a_thread) / least_rows, std::size_t{1}) * least_rows;
    std::atomic<std::size_t> next = done;
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
        while (others.size() + 1 < threads) keep_away(others.emplace_back(take_parts));
    } catch (const std::system_error&) {
        // No more threads to be had: those that there are do it all.
    }
    take_parts();
    others.clear();  // waits for them
    if (failure) std::rethrow_exception(failure);
}

}  // namespace gptq::detail
