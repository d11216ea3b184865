// The kernels that multiply by quantized weights, run on the host, against the product in double.
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <vector>

#include <gptq/backends/cuda/decode.hpp>
#include <gptq/backends/cuda/dequantize_kernel.hpp>
#include <gptq/backends/cuda/host_context.hpp>

#include "support/catch.hpp"
#include "support/fragment_layers.hpp"

namespace {

using gptq::bfloat16;
using gptq::half;
using gptq::matrix;
using gptq::matrix_view;
using gptq_test::plain_layer;

constexpr gptq::cuda::host_launcher on_host;

template <class T>
constexpr double rounding = std::is_same_v<T, half> ? 0x1p-11 : 0x1p-8;

double as_double(float x) { return x; }
double as_double(half x) { return to_float(x); }
double as_double(bfloat16 x) { return to_float(x); }

/// X Wq' in double, and the same of absolute values, which errors are measured by.
struct exact_product {
    matrix<double> value, magnitude;  // [M, N]
};
template <class T>
exact_product multiply(const plain_layer& layer, const matrix<T>& X) {
    const std::size_t N = layer.codes.rows(), K = layer.codes.cols();
    exact_product product{{X.rows(), N}, {X.rows(), N}};
    for (std::size_t t = 0; t < X.rows(); ++t)
        for (std::size_t n = 0; n < N; ++n)
            for (std::size_t k = 0; k < K; ++k) {
                const auto g = static_cast<std::size_t>(layer.g_idx[k]);
                const double w = double{layer.scales(n, g)} * (layer.codes(n, k) - layer.zeros(n, g));
                product.value(t, n) += as_double(X(t, k)) * w;
                product.magnitude(t, n) += std::fabs(as_double(X(t, k)) * w);
            }
    return product;
}

/// The largest error of Y, sums of `parts` matrices, as a multiple of what summing in float and then rounding with a
/// relative error of `rounding_error` may cost.
template <class T>
double worst_error(const exact_product& exact, matrix_view<T> Y, std::size_t parts, double rounding_error) {
    double worst = 0.0;
    for (std::size_t t = 0; t < exact.value.rows(); ++t)
        for (std::size_t n = 0; n < exact.value.cols(); ++n) {
            double y = 0.0;
            for (std::size_t p = 0; p < parts; ++p) y += as_double(Y(p * exact.value.rows() + t, n));
            const double allowed = 1e-6 * exact.magnitude(t, n) + rounding_error * std::fabs(exact.value(t, n)) + 1e-7;
            const double error = std::fabs(y - exact.value(t, n)) / allowed;
            worst = error <= worst ? worst : error;  // NaN is the worst
        }
    return worst;
}

template <class T>
matrix<T> in_slot_order(const gptq::cuda::slot_order& order, const matrix<T>& X) {
    matrix<T> gathered(X.rows(), order.shape.slots());
    const gptq::cuda::gather_inputs_kernel<T> gather{order.features.data(), X.view(), gathered.view()};
    on_host(gather.launch(), gather);
    return gathered;
}

/// decode of random inputs, with the layer in one part and in several.
template <int Bits, class T>
void check_decode(const plain_layer& layer, std::size_t rows) {
    const std::size_t N = layer.codes.rows(), K = layer.codes.cols();
    const auto fragments = layer.pack<Bits>();
    const auto X = gptq_test::random_inputs<T>(rows, K, 5);
    const bool in_place = usable_in_place(fragments.order, X.view());
    const matrix<T> inputs = in_place ? X : in_slot_order(fragments.order, X);
    const exact_product exact = multiply(layer, X);
    matrix<T> Y(rows, N);
    const std::size_t parts = rows % 2 == 0 ? 1 : 3;
    matrix<float> workspace(parts * std::min<std::size_t>(rows, 32), N);
    gptq::cuda::decode<Bits, T>(on_host, fragments.view(), inputs.view(), Y.view(), parts, workspace.view());
    CAPTURE(Bits, layer.symmetric, N, K, layer.scales.cols(), rows, parts, in_place);
    CHECK(worst_error(exact, Y.view(), 1, rounding<T>) < 1.0);
    if (parts > 1 && rows <= 32) CHECK(worst_error(exact, workspace.view(), parts, 0.0) < 1.0);
}

/// Calls check.operator()<Bits, T>() for every number of bits and kind of input.
template <class Check>
void for_each_kind(const Check& check) {
    const auto both = [&]<int Bits>() {
        check.template operator()<Bits, half>();
        check.template operator()<Bits, bfloat16>();
    };
    both.template operator()<2>();
    both.template operator()<3>();
    both.template operator()<4>();
    both.template operator()<8>();
}

}  // namespace

TEST_CASE("decode: all bits, kinds of inputs, grids, group sizes and orders") {
    constexpr std::size_t N = 72, K = 256;
    std::size_t rows = 0;
    for_each_kind([&]<int Bits, class T>() {
        for (const bool symmetric : {false, true})
            for (const std::size_t group : {8u, 16u, 24u, 32u, 64u, 128u, 256u}) {
                const bool shuffled = rows % 3 == 0;
                check_decode<Bits, T>(
                    gptq_test::random_plain_layer(Bits, symmetric, N, K, group, shuffled, static_cast<unsigned>(group)),
                    rows % 9 + 1);
                ++rows;
            }
    });
}

TEST_CASE("decode: 1 to 33 rows") {
    for (std::size_t rows = 1; rows <= 33; ++rows)
        check_decode<4, half>(gptq_test::random_plain_layer(4, false, 66, 128, 64, false, 3), rows);
    for_each_kind([&]<int Bits, class T>() {
        for (const std::size_t rows : {16u, 17u, 33u})
            check_decode<Bits, T>(gptq_test::random_plain_layer(Bits, false, 20, 80, 32, true, 4), rows);
    });
}

TEST_CASE("decode: ragged shapes") {
    for (const std::size_t N : {1u, 63u, 64u, 65u, 130u})
        for (const std::size_t K : {1u, 15u, 17u, 65u, 72u, 200u, 600u}) {
            check_decode<4, half>(gptq_test::random_plain_layer(4, false, N, K, 32, false, 6), 3);
            check_decode<3, bfloat16>(gptq_test::random_plain_layer(3, false, N, K, 48, true, 7), 2);
        }
}
