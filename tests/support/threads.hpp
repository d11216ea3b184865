// Running a test's body on several threads at once.
#pragma once

#include <cstddef>
#include <functional>
#include <thread>
#include <vector>

namespace gptq_test {

/// body(rank) on each of `size` threads. What a body throws ends the test program.
inline void on_ranks(std::size_t size, const std::function<void(std::size_t)>& body) {
    std::vector<std::thread> threads;
    for (std::size_t rank = 0; rank < size; ++rank) threads.emplace_back([&body, rank] { body(rank); });
    for (std::thread& thread : threads) thread.join();
}

}  // namespace gptq_test
