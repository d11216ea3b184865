// expect: with L = gptq::symmetric
#include <gptq/gptq.hpp>

#ifdef CORRECT
using layout = gptq::layout::gptq_v2;
#else
using layout = gptq::symmetric;
#endif

void f(const gptq::quantized_layer& q) { (void)gptq::pack<layout>(q); }
