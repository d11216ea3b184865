// Layers and calibration inputs to test on: correlated inputs of unequal size, as real activations are.
#pragma once

#include <cmath>
#include <cstddef>
#include <random>

#include <gptq/matrix_view.hpp>
#include <gptq/xtensor/adapt.hpp>

namespace gptq_test {

struct random_layer {
    gptq::matrix<float> W;  // [N, K]
    gptq::matrix<float> X;  // [T, K]
};

/// Independent normal numbers.
inline gptq::tensor2<float> random_inputs(std::size_t rows, std::size_t cols) {
    std::mt19937 random(7);
    std::normal_distribution<float> normal;
    auto X = gptq::make_tensor2<float>(rows, cols);
    for (float& x : X) x = normal(random);
    return X;
}

/// N output and K input features, T tokens. Inputs share a few common factors, and their sizes spread over a decade.
inline random_layer make_layer(std::size_t N, std::size_t K, std::size_t T, unsigned seed) {
    std::mt19937 random(seed);
    std::normal_distribution<float> normal;
    random_layer layer{gptq::matrix<float>(N, K), gptq::matrix<float>(T, K)};
    for (std::size_t n = 0; n < N; ++n)
        for (std::size_t k = 0; k < K; ++k) layer.W(n, k) = 0.1f * normal(random);
    constexpr std::size_t factors = 4;
    gptq::matrix<float> mix(factors, K);
    gptq::matrix<float> size(1, K);
    for (std::size_t k = 0; k < K; ++k) {
        for (std::size_t f = 0; f < factors; ++f) mix(f, k) = normal(random);
        size(0, k) = std::pow(10.0f, 0.5f * std::tanh(normal(random)));
    }
    for (std::size_t t = 0; t < T; ++t) {
        float common[factors];
        for (float& c : common) c = normal(random);
        for (std::size_t k = 0; k < K; ++k) {
            float x = normal(random);
            for (std::size_t f = 0; f < factors; ++f) x += common[f] * mix(f, k);
            layer.X(t, k) = size(0, k) * x;
        }
    }
    return layer;
}

}  // namespace gptq_test
