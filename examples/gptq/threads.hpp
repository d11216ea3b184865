// How many threads the program computes with; the library itself never changes that.
#pragma once

#include <cstddef>
#include <string>

namespace program {

/// Makes OpenBLAS and OpenMP use `count` threads from here on; 0 leaves both as they are. `computes` says that the
/// command multiplies matrices. Throws gptq::error where the system does not allow so many threads, or not the address
/// space that OpenBLAS needs: it would wait for both for ever.
void use_threads(std::size_t count, bool computes);

/// How many threads BLAS computes with, or OpenMP where BLAS does not say.
std::size_t threads_in_use();

/// The name and the version of the BLAS library, "unknown" where it does not say.
std::string blas_name();

/// Starts the program again with the idle threads of OpenMP and OpenBLAS asleep instead of spinning, unless the user has
/// chosen. Where both and the solver's own threads take turns, as in `quantize`, `eval` and `study`, spinning threads of the one
/// take the processors from the other: more than twice the processor time on two cores. Both libraries read this before
/// main() begins, hence the restart.
/// Returns if there is nothing to do or the system does not allow it.
void let_idle_threads_sleep(char** argv);

}  // namespace program
