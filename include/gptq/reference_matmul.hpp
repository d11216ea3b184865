// What a product with a quantized layer is, in plain loops: the specification of matmul, and what tests compare it
// with. Slow.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <span>
#include <vector>

#include <gptq/activation.hpp>
#include <gptq/matrix_view.hpp>
#include <gptq/quantized.hpp>

namespace gptq {

namespace detail {

/// The inputs of one token at `features`, which share a scale, replaced by what A holds them as.
template <Activation A>
void hold_block(std::span<float> x, std::span<const std::size_t> features) {
    float largest = 0.0f;
    for (const std::size_t k : features) largest = std::max(largest, std::fabs(x[k]));
    if (!(largest >= 1e-30f)) {
        for (const std::size_t k : features) x[k] = 0.0f;
        return;
    }
    constexpr auto levels = static_cast<float>(A::levels);
    const float inverse = levels / largest, scale = largest / levels;
    for (const std::size_t k : features) x[k] = std::nearbyint(x[k] * inverse) * scale;
}

template <Activation A>
void hold_inputs(std::span<float> x, std::span<const std::int32_t> g_idx, std::size_t groups) {
    constexpr std::size_t block = 128;
    for (std::size_t g = 0; g < groups; ++g) {
        std::vector<std::size_t> features;
        for (std::size_t k = 0; k < x.size(); ++k)
            if (static_cast<std::size_t>(g_idx[k]) == g) features.push_back(k);
        const std::span<const std::size_t> all(features);
        for (std::size_t first = 0; first < all.size(); first += block)
            hold_block<A>(x, all.subspan(first, std::min(block, all.size() - first)));
    }
}

}  // namespace detail

/// Y(t, n) = sum over k of x(k) scale(n, g) (level(code(n, k)) - zero(n, g)), with g = g_idx[k] and x the inputs of
/// token t as A holds them; summed in double. Inputs must be finite and shapes fit together.
///                                                                                  X [T, K]  q [N, K]  Y [T, N]
template <Activation A>
void reference_matmul(const_quantized_view q, matrix_view<const float> X, matrix_view<double> Y) {
    matrix<float> held(1, X.cols);
    const auto levels = level_table(q.levels);
    const auto x = held.view().row(0);
    for (std::size_t t = 0; t < X.rows; ++t) {
        std::copy_n(X.row(t).data(), X.cols, x.data());
        if constexpr (A::levels != 0) detail::hold_inputs<A>(x, q.g_idx, q.scales.cols);
        for (std::size_t n = 0; n < Y.cols; ++n) {
            double sum = 0.0;
            for (std::size_t k = 0; k < X.cols; ++k) {
                const auto g = static_cast<std::size_t>(q.g_idx[k]);
                const double steps = double{levels[q.codes(n, k)]} - q.zeros(n, g);
                sum += double{x[k]} * double{q.scales(n, g)} * steps;
            }
            Y(t, n) = sum;
        }
    }
}

}  // namespace gptq
