// Random quantized layers of any bits, groups and orders, packed for the CUDA kernels.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <random>
#include <vector>

#include <gptq/backends/cuda/fragment_order.hpp>
#include <gptq/backends/cuda/host_context.hpp>
#include <gptq/groups.hpp>
#include <gptq/half.hpp>
#include <gptq/matrix_view.hpp>
#include <gptq/quantized.hpp>

namespace gptq_test {

/// A quantized layer in host memory.
struct plain_layer {
    int bits;
    bool symmetric;
    gptq::matrix<std::uint8_t> codes;  // [N, K]
    gptq::matrix<float> scales;        // [N, G]
    gptq::matrix<std::uint8_t> zeros;  // [N, G]
    std::vector<std::int32_t> g_idx;   // [K]

    gptq::const_quantized_view view() const { return {codes.view(), scales.view(), zeros.view(), g_idx}; }

    template <int Bits>
    gptq::cuda::host_fragments pack() const {
        const gptq::cuda::code_source source{codes.view(), scales.view(), zeros.view()};
        return gptq::cuda::pack_fragments<Bits>(source, g_idx, scales.cols(), symmetric);
    }
};

/// Codes, zero points and scales at random; features of a group lie together, or anywhere if `shuffled`.
inline plain_layer random_plain_layer(int bits, bool symmetric, std::size_t N, std::size_t K,
                                      std::size_t group_features, bool shuffled, unsigned seed) {
    std::mt19937 random(seed);
    const std::size_t G = gptq::group_count(K, group_features);
    plain_layer layer{bits, symmetric, {N, K}, {N, G}, {N, G}, std::vector<std::int32_t>(K)};
    const auto code = [&] { return static_cast<std::uint8_t>(random() % (1u << bits)); };
    std::generate_n(layer.codes.data(), N * K, code);
    std::generate_n(layer.zeros.data(), N * G,
                    [&] { return symmetric ? static_cast<std::uint8_t>(1u << (bits - 1)) : code(); });
    std::generate_n(layer.scales.data(), N * G,
                    [&] { return gptq::round_to_half(std::uniform_real_distribution<float>(0.001f, 0.02f)(random)); });
    for (std::size_t k = 0; k < K; ++k) layer.g_idx[k] = static_cast<std::int32_t>(k / group_features);
    if (shuffled) std::shuffle(layer.g_idx.begin(), layer.g_idx.end(), random);
    return layer;
}

/// [rows, cols] of T, between -1 and 1.
template <class T>
gptq::matrix<T> random_inputs(std::size_t rows, std::size_t cols, unsigned seed) {
    std::mt19937 random(seed);
    gptq::matrix<T> X(rows, cols);
    std::generate_n(X.data(), rows * cols,
                    [&] { return gptq::narrow<T>(std::uniform_real_distribution<float>(-1.0f, 1.0f)(random)); });
    return X;
}

}  // namespace gptq_test
