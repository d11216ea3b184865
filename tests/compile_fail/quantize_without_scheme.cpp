// expect: with S = int
#include <gptq/gptq.hpp>

#ifdef CORRECT
using what = gptq::scheme<4>;
#else
using what = int;
#endif

void f(const gptq::tensor2<float>& W, const gptq::hessian<float>& h) { (void)gptq::quantize<what>(W, h); }
