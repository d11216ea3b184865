// Rows shared out to threads of the CPU backend.
#pragma once

#include <algorithm>
#include <cstddef>
#include <system_error>
#include <thread>
#include <vector>

#include <gptq/kernels/threads.hpp>

namespace gptq::detail {

/// f(first, last) for parts that make up [0, n), one a thread, as many as kernels::default_threads() says.
///
/// The threads end with the call. OpenMP's would wait actively for some milliseconds after it, and the BLAS, which has
/// threads of its own and comes next, would get no processor: that made layers of 1024 x 1024 take five times as long.
template <class F>
void on_row_threads(std::size_t n, const F& f) {
    constexpr std::size_t least_rows = 16;  // fewer are not worth a thread
    const std::size_t parts = std::min(n / least_rows, kernels::default_threads());
    if (parts <= 1) return f(std::size_t{0}, n);
    const auto part = [&](std::size_t p) { f(n * p / parts, n * (p + 1) / parts); };
    std::vector<std::jthread> others;
    others.reserve(parts - 1);
    std::size_t begun = 1;
    try {
        for (; begun < parts; ++begun) others.emplace_back(part, begun);
    } catch (const std::system_error&) {  // no more threads to be had: the rest is done here
        for (std::size_t p = begun; p < parts; ++p) part(p);
    }
    part(0);
}

}  // namespace gptq::detail
