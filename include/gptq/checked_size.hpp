// Sums and products of sizes that come from outside: a result that no std::size_t holds is an error, not a small
// number.
#pragma once

#include <cstddef>
#include <limits>
#include <string>

#include <gptq/error.hpp>

namespace gptq {

/// a + b. Throws shape_error that begins with `what` (what has this size) if the sum wraps.
inline std::size_t checked_add(std::size_t a, std::size_t b, const char* what) {
    if (b > std::numeric_limits<std::size_t>::max() - a)
        throw shape_error(std::string(what) + ": " + std::to_string(a) + " + " + std::to_string(b) +
                          " is more than memory can hold; ask for less");
    return a + b;
}

/// a * b. Throws shape_error that begins with `what` (what has this size) if the product wraps.
inline std::size_t checked_multiply(std::size_t a, std::size_t b, const char* what) {
    if (a != 0 && b > std::numeric_limits<std::size_t>::max() / a)
        throw shape_error(std::string(what) + ": " + std::to_string(a) + " * " + std::to_string(b) +
                          " is more than memory can hold; ask for less");
    return a * b;
}

/// The number of elements of a [rows, cols] matrix of T, whose bytes an address can count. Throws shape_error that
/// begins with `what` if there are more.
template <class T>
std::size_t checked_elements(std::size_t rows, std::size_t cols, const char* what = "a matrix") {
    constexpr std::size_t most = static_cast<std::size_t>(std::numeric_limits<std::ptrdiff_t>::max()) / sizeof(T);
    if (rows != 0 && cols > most / rows)
        throw shape_error(std::string(what) + " " + shape_string(rows, cols) +
                          " is more than memory can hold; ask for less");
    return rows * cols;
}

}  // namespace gptq
