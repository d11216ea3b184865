// A layer from float weights to a product with its quantized form.
#include <iostream>
#include <random>

#include <gptq/gptq.hpp>

int main() {
    std::mt19937 generator(1);
    std::normal_distribution<float> normal;
    auto W = gptq::make_tensor2<float>(256, 512);   // weights [out_features, in_features]
    auto X = gptq::make_tensor2<float>(2048, 512);  // what the layer reads [tokens, in_features]
    for (float& w : W) w = normal(generator);
    float last = 0.0f;
    for (float& x : X) x = last = 0.9f * last + normal(generator);  // neighbours are alike, as in a model

    using w4 = gptq::scheme<4, gptq::group_size<128>, gptq::symmetric, gptq::group_aware_order>;
    gptq::hessian<float> h(512);
    h.add(X);  // as often as there are tokens
    const auto q = gptq::quantize<w4>(W, h);
    const auto r = gptq::round_to_nearest<w4>(W);                               // the baseline
    const auto words = gptq::pack<gptq::layout::gptq_v2>(q);                    // as checkpoints hold them
    const auto Y = gptq::matmul(X, gptq::prepare<gptq::activation::int16>(q));  // [tokens, out_features]

    const double error = gptq::layer_error(W, q, h), baseline = gptq::layer_error(W, r, h);
    std::cout << "error of " << Y.size() << " outputs: " << error << ", by rounding to nearest: " << baseline
              << "; words of the codes: " << words.qweight.size() << '\n';
    return error < 0.5 * baseline ? 0 : 1;
}
