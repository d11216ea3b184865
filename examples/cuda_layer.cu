// One layer on a GPU, from calibration inputs to a product with the quantized weights: quick_start.cpp with another
// backend. Needs nvcc and, to run, a GPU; without one it says so and ends with status 77.
#include <cmath>
#include <cstddef>
#include <iostream>

#include <gptq/cuda.hpp>

#include "check.hpp"
#include "random_layer.hpp"

using w4 = gptq::scheme<4, gptq::group_size<128>, gptq::asymmetric, gptq::act_order>;

int main() {
    if (gptq::cuda::device_count() == 0) {
        std::cerr << "skipped: there is no GPU here\n";
        return 77;
    }
    const std::size_t out_features = 256, in_features = 512;
    const auto W = random_matrix(out_features, in_features, 1);
    const auto X = random_inputs(2048, in_features, 2);

    const gptq::cuda_backend gpu;
    gptq::basic_hessian<gptq::cuda_backend> h(in_features, gpu);
    h.add(X);
    const auto q = gptq::quantize<w4>(W, h, {}, gpu);
    const auto m = gptq::prepare(q, gpu);                                // or from gptq::packed, as checkpoints have it
    const auto few = gptq::matmul(random_inputs(3, in_features, 3), m);  // the decode kernel
    const auto many = gptq::matmul(random_inputs(300, in_features, 3), m);  // cuBLASLt

    gptq::hessian<float> on_host(in_features);
    on_host.add(X);
    const double error = gptq::layer_error(W, q, on_host);
    const double usual = gptq::layer_error(W, gptq::quantize<w4>(W, on_host), on_host);
    std::cout << "error of the outputs: " << error << ", on the CPU: " << usual << '\n';
    check(std::fabs(error - usual) <= 0.02 * usual, "both backends quantize alike");

    const auto Wq = gptq::dequantize(q);
    const auto inputs = random_inputs(3, in_features, 3);
    double y = 0.0, magnitude = 0.0;
    for (std::size_t k = 0; k < in_features; ++k) {
        y += double{inputs(2, k)} * double{Wq(5, k)};
        magnitude += std::fabs(double{inputs(2, k)} * double{Wq(5, k)});
    }
    check(std::fabs(few(2, 5) - y) <= 2e-3 * magnitude, "matmul is X Wq'");
    check(std::fabs(many(2, 5) - y) <= 2e-3 * magnitude, "of many rows as well");
}
