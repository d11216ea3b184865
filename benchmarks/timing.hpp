// What the benchmarks measure times with.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <vector>

// OpenBLAS's own names; with another BLAS they are absent.
extern "C" {
__attribute__((weak)) void openblas_set_num_threads(int count);
__attribute__((weak)) char* openblas_get_corename();
}

namespace timing {

template <class F>
double seconds_of(const F& work) {
    const auto start = std::chrono::steady_clock::now();
    work();
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

inline double median(std::vector<double> values) {
    const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
    std::nth_element(values.begin(), middle, values.end());
    return *middle;
}

}  // namespace timing
