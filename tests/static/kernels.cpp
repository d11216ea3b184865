// All kernels, compiled without any -march: check_regions.cmake looks at the machine code.
#include <gptq/gptq.hpp>

template class gptq::prepared<gptq::activation::exact>;
template class gptq::prepared<gptq::activation::int16>;
template class gptq::prepared<gptq::activation::int8>;

template <gptq::Activation A>
gptq::tensor2<float> product(const gptq::quantized_layer& q, gptq::matrix_view<const float> X) {
    return gptq::matmul(X, gptq::prepare<A>(q));
}
template gptq::tensor2<float> product<gptq::activation::exact>(const gptq::quantized_layer&,
                                                               gptq::matrix_view<const float>);
template gptq::tensor2<float> product<gptq::activation::int16>(const gptq::quantized_layer&,
                                                               gptq::matrix_view<const float>);
template gptq::tensor2<float> product<gptq::activation::int8>(const gptq::quantized_layer&,
                                                              gptq::matrix_view<const float>);
