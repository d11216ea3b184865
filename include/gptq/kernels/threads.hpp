// Work in parallel, where the user's build has OpenMP.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <exception>
#include <numeric>

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

/// The same in pieces that threads take one after the other, smaller and smaller ones: a thread that begins late, or
/// whose memory is slower, takes fewer. f is called several times in a thread.
template <class F>
void in_pieces(std::size_t count, std::size_t threads, const F& f) {
    if (threads <= 1 || count <= 1) return f(std::size_t{0}, count);
    std::atomic<std::size_t> next = 0;
    in_parallel(threads, threads, [&](std::size_t, std::size_t) {
        std::size_t first = next.load(std::memory_order_relaxed);
        while (first < count) {
            const std::size_t last = first + std::max<std::size_t>(1, 3 * (count - first) / (4 * threads));
            if (!next.compare_exchange_weak(first, last, std::memory_order_relaxed)) continue;
            f(first, last);
            first = next.load(std::memory_order_relaxed);
        }
    });
}

/// Runs several loops side by side, as if they were one. Each job has count() pieces, and job(first, last) does some of
/// them. Starting threads once for all of them takes less time than once for each.
template <class Jobs>
void run_jobs(const Jobs& jobs, std::size_t threads) {
    const std::size_t total = std::accumulate(jobs.begin(), jobs.end(), std::size_t{0},
                                              [](std::size_t sum, const auto& job) { return sum + job.count(); });
    in_pieces(total, threads, [&](std::size_t first, std::size_t last) {
        std::size_t begin = 0;
        for (const auto& job : jobs) {
            const std::size_t end = begin + job.count();
            const std::size_t from = std::max(first, begin), to = std::min(last, end);
            if (from < to) job(from - begin, to - begin);
            begin = end;
        }
    });
}

}  // namespace gptq::kernels
