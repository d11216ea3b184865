// Weights and calibration inputs that stand in for a real layer's.
#pragma once

#include <cstddef>
#include <random>

#include <gptq/xtensor/adapt.hpp>

/// Normally distributed numbers.
inline gptq::tensor2<float> random_matrix(std::size_t rows, std::size_t cols, unsigned seed) {
    std::mt19937 generator(seed);
    std::normal_distribution<float> normal;
    auto m = gptq::make_tensor2<float>(rows, cols);
    for (float& x : m) x = normal(generator);
    return m;
}

/// Inputs as layers see them: neighbouring features are correlated, which is what GPTQ lives on.
inline gptq::tensor2<float> random_inputs(std::size_t tokens, std::size_t features, unsigned seed) {
    auto X = random_matrix(tokens, features, seed);
    for (std::size_t t = 0; t < tokens; ++t)
        for (std::size_t k = 1; k < features; ++k) X(t, k) += 0.9f * X(t, k - 1);
    return X;
}
