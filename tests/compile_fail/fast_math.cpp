// expect: break its rounding
// flags: -ffast-math
#include <gptq/quantize.hpp>
