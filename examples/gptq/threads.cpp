// Thread counts of the libraries that the program is linked with.
#include "threads.hpp"

#include <cstdlib>
#include <string_view>

#include <unistd.h>

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

void let_idle_threads_sleep([[maybe_unused]] char** argv) {
#ifdef _OPENMP
    if (argv[0] == nullptr || argv[1] == nullptr) return;
    const std::string_view command = argv[1];
    if (command != "quantize" && command != "eval") return;
    if (std::getenv("OMP_WAIT_POLICY") || std::getenv("GOMP_SPINCOUNT")) return;
    if (setenv("OMP_WAIT_POLICY", "passive", 1) == 0) execv("/proc/self/exe", argv);
#endif
}

}  // namespace program
