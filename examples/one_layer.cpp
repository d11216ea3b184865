// One layer from float weights to a checkpoint's words and back, and a product with the result.
#include <cmath>
#include <cstddef>
#include <iostream>

#include <gptq/gptq.hpp>

#include "check.hpp"
#include "random_layer.hpp"

int main() {
    const std::size_t out_features = 256, in_features = 512;
    const auto W = random_matrix(out_features, in_features, 1);
    const auto X = random_inputs(2048, in_features, 2);

    using w4 = gptq::scheme<4, gptq::group_size<128>, gptq::symmetric, gptq::act_order>;

    gptq::hessian<float> h(in_features);
    h.add(X);                                                   // any [tokens, in_features] matrix, as often as needed
    auto q = gptq::quantize<w4>(W, h, {.damp_percent = 0.01});  // W: [out_features, in_features]
    auto r = gptq::round_to_nearest<w4>(W);                     // the baseline
    auto Wq = gptq::dequantize(q);                              // [out_features, in_features]
    const double error = gptq::layer_error(W, q, h), baseline = gptq::layer_error(W, r, h);

    auto t = gptq::pack<gptq::layout::gptq_v2>(q);  // t.qweight, t.qzeros, t.scales, t.g_idx
    auto q2 = gptq::unpack<gptq::layout::gptq_v2, w4>(t);

    auto m = gptq::prepare<gptq::activation::exact>(q2);  // once
    auto Y = gptq::matmul(X, m);                          // [tokens, out_features] = X Wq'

    std::cout << "error of the outputs: " << error << ", round-to-nearest: " << baseline << '\n';
    check(error < 0.5 * baseline, "GPTQ has less than half of round-to-nearest's error");
    check(q.codes == q2.codes && q.scales == q2.scales && q.zeros == q2.zeros && q.g_idx == q2.g_idx, "round trip");
    check(t.qweight.shape()[0] == in_features * 4 / 32 && t.qweight.shape()[1] == out_features, "8 codes a word");
    double y = 0.0, magnitude = 0.0;
    for (std::size_t k = 0; k < in_features; ++k) {
        y += double{X(7, k)} * double{Wq(3, k)};
        magnitude += std::fabs(double{X(7, k)} * double{Wq(3, k)});
    }
    check(std::fabs(Y(7, 3) - y) <= 1e-5 * magnitude, "matmul is X Wq'");
}
