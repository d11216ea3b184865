// expect: errors are exceptions
// flags: -fno-exceptions
#include <gptq/quantize.hpp>
