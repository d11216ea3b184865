// What a program of many files does in each of them: with gptq::compiled, it only calls what that library holds.
// check_compiled.cmake looks at the symbols.
#include <gptq/gptq.hpp>

using w4 = gptq::scheme<4, gptq::group_size<128>, gptq::symmetric>;

gptq::tensor2<float> quantize_and_multiply(const gptq::tensor2<float>& W, const gptq::hessian<float>& h,
                                           const gptq::tensor2<float>& X) {
    return gptq::matmul(X, gptq::prepare<gptq::activation::int16>(gptq::quantize<w4>(W, h)));
}
