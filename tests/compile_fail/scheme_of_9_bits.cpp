// expect: the number of bits is 2 to 8
#include <gptq/scheme.hpp>

#ifdef CORRECT
constexpr int bits = 8;
#else
constexpr int bits = 9;
#endif

static_assert(gptq::scheme<bits>::bits == bits);
