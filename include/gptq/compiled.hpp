// Headers alone, or a library compiled once: the one place where the two differ.
//
// With GPTQ_COMPILED defined in all files of a program, the kernels, the threads and the solver of the usual schemes are
// only declared in it; backends/cpu/*.cpp, compiled with the same definition, holds them. CMake's target gptq::compiled
// does both. Without it, which is the default, nothing but headers is needed. See docs/building.md for what it saves.
#pragma once

/// What a function is declared with that is no template, and belongs to that library if there is one.
#ifdef GPTQ_COMPILED
#define GPTQ_INLINE
#else
#define GPTQ_INLINE inline
#endif
