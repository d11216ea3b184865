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

/// Starts the program again if the environment that its libraries read before main() is not as the command needs it.
/// The idle threads of OpenMP and OpenBLAS sleep instead of spinning, unless the user has chosen, where both and the
/// solver's own threads take turns, as in `quantize`, `eval` and `study`. With --reproducible, the kernels are those
/// that fix_order_of_sums() needs. Returns if there is nothing to do or the system does not allow it.
void choose_environment(char** argv);

/// From here on, the same numbers are added up in the same order whatever the number of threads and whichever processor
/// of this architecture computes: BLAS has one thread. Throws unsupported_error where the kernels are not there.
void fix_order_of_sums();

}  // namespace program
