// Quantizes a small layer as any user would, and ends with 0 if what comes back is close to the original.
#include <cmath>
#include <cstddef>
#include <gptq/gptq.hpp>
#include <gptq/version.hpp>
#include <iostream>

int main() {
    constexpr std::size_t outputs = 4, inputs = 64, tokens = 128;
    auto W = gptq::make_tensor2<float>(outputs, inputs);
    auto X = gptq::make_tensor2<float>(tokens, inputs);
    for (std::size_t i = 0; i < W.size(); ++i) W.data()[i] = std::sin(static_cast<float>(i));
    for (std::size_t i = 0; i < X.size(); ++i) X.data()[i] = std::cos(static_cast<float>(i * i % 997));

    gptq::hessian<float> h(inputs);
    h.add(X);
    const auto q = gptq::quantize<gptq::scheme<8, gptq::group_size<32>>>(W, h);
    const auto restored = gptq::dequantize(q);

    for (std::size_t i = 0; i < W.size(); ++i)
        if (!(std::abs(restored.data()[i] - W.data()[i]) < 0.1f)) return 1;
    std::cout << "gptq " << gptq::version_string << ": quantized " << gptq::shape_string(outputs, inputs) << '\n';
    return 0;
}
