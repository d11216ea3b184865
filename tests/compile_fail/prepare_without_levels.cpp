// expect: a layer outlives its grid only if the grid says what its codes stand for
#include "grid_without_levels.hpp"

void f(const gptq::quantized<my_scheme>& q) { (void)gptq::prepare<gptq::activation::exact>(q); }
