// How many threads the program computes with; the library itself never changes that.
#pragma once

#include <cstddef>

namespace program {

/// Makes OpenBLAS and OpenMP use `count` threads from here on; 0 leaves both as they are.
void use_threads(std::size_t count);

}  // namespace program
