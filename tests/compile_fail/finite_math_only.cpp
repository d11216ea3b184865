// expect: search for NaN
// flags: -ffinite-math-only
#include <gptq/finite.hpp>
