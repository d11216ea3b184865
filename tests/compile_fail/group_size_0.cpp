// expect: a positive size, gptq::per_channel or gptq::dynamic
#include <gptq/scheme.hpp>

#ifdef CORRECT
using my_scheme = gptq::scheme<4, gptq::group_size<gptq::per_channel>>;
#else
using my_scheme = gptq::scheme<4, gptq::group_size<0>>;
#endif
static_assert(my_scheme::group::value == gptq::per_channel);
