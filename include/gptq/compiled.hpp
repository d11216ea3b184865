// Headers alone, or a library compiled once: the one place where the two differ.
//
// With GPTQ_COMPILED defined in all files of a program, the kernels, the threads, the solver of the usual schemes and
// the functions of io/ and model/ are only declared in it; backends/cpu/*.cpp, compiled with the same definition, holds
// them. CMake's target gptq::compiled does both. Without it, which is the default, nothing but headers is needed.
//
// The pattern: a header declares, and includes the header with the bodies at its end unless GPTQ_COMPILED is defined.
// Bodies stand in impl/ (io, model), or in a header of another name (kernels/find_isa.hpp, kernels/find_kernel.hpp,
// backends/cpu/share_rows.hpp).
#pragma once

/// What a function is declared with that is no template, and belongs to that library if there is one.
#ifdef GPTQ_COMPILED
#define GPTQ_INLINE
#else
#define GPTQ_INLINE inline
#endif
