// What the library asks of the compiler beside C++20. Included by every header that would go wrong without it.
#pragma once

// Weights are rounded by adding 1.5 * 2^23 and subtracting it again, and NaN is found as what differs from itself:
// these flags allow compilers to take both out, and codes are wrong then without a word.
#if defined(__FAST_MATH__) || defined(__ASSOCIATIVE_MATH__) || (defined(__FINITE_MATH_ONLY__) && __FINITE_MATH_ONLY__)
#error \
    "gptq: -ffast-math, -Ofast, -fassociative-math and -ffinite-math-only break its rounding and its search for NaN; \
compile files that include gptq without them"
#endif

#ifndef __cpp_exceptions
#error "gptq: errors are exceptions, so that files that include it cannot be compiled with -fno-exceptions"
#endif
