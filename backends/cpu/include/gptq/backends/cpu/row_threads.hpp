// Rows shared out to threads of the CPU backend.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <system_error>
#include <thread>
#include <vector>

#include <gptq/kernels/threads.hpp>

namespace gptq::detail {

/// f(first, last) for parts that make up [0, n), by as many threads as kernels::default_threads() says. A thread that is
/// through with a part takes the next: the BLAS's threads still spin for a while after its calls, and slow some down.
///
/// The threads end with the call. OpenMP's would wait actively for some milliseconds after it, and the BLAS, which has
/// threads of its own and comes next, would get no processor: that made layers of 1024 x 1024 take five times as long.
template <class F>
void on_row_threads(std::size_t n, const F& f) {
    constexpr std::size_t least_rows = 16, parts_a_thread = 8;
    const std::size_t threads = std::min(n / least_rows, kernels::default_threads());
    if (threads <= 1) return f(std::size_t{0}, n);
    const std::size_t rows = std::max(n / (threads * parts_a_thread) / least_rows, std::size_t{1}) * least_rows;
    std::atomic<std::size_t> next = 0;
    const auto take_parts = [&] {
        for (std::size_t first = next.fetch_add(rows); first < n; first = next.fetch_add(rows))
            f(first, std::min(first + rows, n));
    };
    std::vector<std::jthread> others;
    others.reserve(threads - 1);
    try {
        while (others.size() + 1 < threads) others.emplace_back(take_parts);
    } catch (const std::system_error&) {
        // No more threads to be had: those that there are do it all.
    }
    take_parts();
}

}  // namespace gptq::detail
