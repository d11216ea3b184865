// expect: b\.multiply\(
#include <gptq/gptq.hpp>
#include <gptq/reference_backend.hpp>

// All of a backend by inheritance, but for `multiply`.
struct my_backend : gptq::reference_backend {
#ifndef CORRECT
    void multiply() = delete;
#endif
};

#ifdef CORRECT
static_assert(gptq::Backend<my_backend>);
#endif

void f(const gptq::tensor2<float>& W, const gptq::hessian<float>& h) {
    (void)gptq::quantize<gptq::scheme<4>>(W, h, {}, my_backend{});
}
