// expect: at least one and not all
#include <gptq/prune.hpp>

#ifdef CORRECT
using pattern = gptq::sparsity<2, 4>;
#else
using pattern = gptq::sparsity<4, 2>;
#endif
static_assert(pattern::pattern.of == 4);
