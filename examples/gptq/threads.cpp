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

void let_idle_threads_sleep(char** argv) {
    if (argv[0] == nullptr || argv[1] == nullptr) return;
    const std::string_view command = argv[1];
    if (command != "quantize" && command != "eval") return;
    const char *openmp = "OMP_WAIT_POLICY", *openblas = "OPENBLAS_THREAD_TIMEOUT";
    if (std::getenv(openmp) || std::getenv("GOMP_SPINCOUNT") || std::getenv(openblas)) return;
    // The time-out is 2^4 cycles.
    if (setenv(openmp, "passive", 1) == 0 && setenv(openblas, "4", 1) == 0) execv("/proc/self/exe", argv);
}

}  // namespace program
