// Thread counts of the libraries that the program is linked with.
#include "threads.hpp"

#ifdef _OPENMP
#include <omp.h>
#endif

// OpenBLAS's own call. Weak: with another BLAS it is absent, and that library's environment variable is the way.
extern "C" __attribute__((weak)) void openblas_set_num_threads(int count);

namespace program {

void use_threads(std::size_t count) {
    if (count == 0) return;
    if (openblas_set_num_threads) openblas_set_num_threads(static_cast<int>(count));
#ifdef _OPENMP
    omp_set_num_threads(static_cast<int>(count));
#endif
}

}  // namespace program
