// The kernels that multiply by quantized weights, run on the host, against the product in double.
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <type_traits>
#include <vector>

#include <gptq/backends/cuda/decode.hpp>
#include <gptq/backends/cuda/dequantize_kernel.hpp>
#include <gptq/backends/cuda/host_context.hpp>

#include "support/catch.hpp"
#include "support/fragment_layers.hpp"
#include "support/mutant_context.hpp"

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

/// decode of random inputs in `parts` parts by kernels in `Context`: the worst error of the outputs, and of the sums in
/// float where there are several parts (0 otherwise).
struct decode_errors {
    double outputs, sums;
};
template <int Bits, class T, class Context = gptq::cuda::host_context>
decode_errors decode_on_host(const plain_layer& layer, std::size_t rows, std::size_t parts) {
    const auto fragments = layer.pack<Bits>();
    const auto X = gptq_test::random_inputs<T>(rows, layer.codes.cols(), 5);
    const matrix<T> inputs = usable_in_place(fragments.order, X.view()) ? X : in_slot_order(fragments.order, X);
    matrix<T> Y(rows, layer.codes.rows());
    matrix<float> workspace(parts * std::min(rows, gptq::cuda::decode_rows), Y.cols());
    gptq::cuda::decode<Bits, T>(gptq::cuda::basic_host_launcher<Context>(), fragments.view(), inputs.view(), Y.view(),
                                parts, workspace.view());
    const exact_product exact = multiply(layer, X);
    const bool has_sums = parts > 1 && rows <= gptq::cuda::decode_rows;
    return {worst_error(exact, Y.view(), 1, rounding<T>),
            has_sums ? worst_error(exact, workspace.view(), parts, 0.0) : 0.0};
}

template <int Bits, class T>
void check_decode(const plain_layer& layer, std::size_t rows) {
    const std::size_t parts = rows % 2 == 0 ? 1 : 3;
    CAPTURE(Bits, layer.symmetric, layer.codes.rows(), layer.codes.cols(), layer.scales.cols(), rows, parts);
    const decode_errors errors = decode_on_host<Bits, T>(layer, rows, parts);
    CHECK(errors.outputs < 1.0);
    CHECK(errors.sums < 1.0);
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

TEST_CASE("decode: all bits, kinds of inputs, grids, group sizes and orders", "[many]") {
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

TEST_CASE("decode: 1 to 33 rows", "[many]") {
    for (std::size_t rows = 1; rows <= 33; ++rows)
        check_decode<4, half>(gptq_test::random_plain_layer(4, false, 66, 128, 64, false, 3), rows);
    for_each_kind([&]<int Bits, class T>() {
        for (const std::size_t rows : {16u, 17u, 33u})
            check_decode<Bits, T>(gptq_test::random_plain_layer(Bits, false, 20, 80, 32, true, 4), rows);
    });
}

TEST_CASE("decode: ragged shapes", "[many]") {
    for (const std::size_t N : {1u, 63u, 64u, 65u, 130u})
        for (const std::size_t K : {1u, 15u, 17u, 65u, 72u, 200u, 600u}) {
            check_decode<4, half>(gptq_test::random_plain_layer(4, false, N, K, 32, false, 6), 3);
            check_decode<3, bfloat16>(gptq_test::random_plain_layer(3, false, N, K, 48, true, 7), 2);
        }
}

TEST_CASE("decode: every kind of kernel, with enough tiles for a warp to go round its ring") {
    for_each_kind([]<int Bits, class T>() {
        const auto layer = gptq_test::random_plain_layer(Bits, false, 64, 1024, 128, false, 14);
        check_decode<Bits, T>(layer, 2);
        if (Bits == 3 || Bits == 8) check_decode<Bits, T>(layer, std::is_same_v<T, half> ? 16 : 32);
    });
}

TEST_CASE("decode: groups of unequal sizes, one of them empty") {
    auto layer = gptq_test::random_plain_layer(4, false, 10, 100, 25, false, 8);
    for (auto& g : layer.g_idx) g = g == 1 ? 0 : g;
    check_decode<4, half>(layer, 3);
}

TEST_CASE("decode: inputs that are not finite make outputs that are not, in their row alone") {
    const auto layer = gptq_test::random_plain_layer(4, false, 64, 128, 32, false, 9);
    const auto fragments = layer.pack<4>();
    auto X = gptq_test::random_inputs<half>(2, 128, 5);
    X(0, 77) = half{0x7c00};
    matrix<half> Y(2, 64);
    gptq::cuda::decode<4, half>(on_host, fragments.view(), X.view(), Y.view());
    for (std::size_t n = 0; n < 64; ++n) {
        CHECK_FALSE(std::isfinite(as_double(Y(0, n))));
        CHECK(std::isfinite(as_double(Y(1, n))));
    }
}

TEST_CASE("decode: the same call gives the same bits") {
    const auto layer = gptq_test::random_plain_layer(4, false, 64, 512, 64, false, 10);
    const auto fragments = layer.pack<4>();
    const auto X = gptq_test::random_inputs<half>(5, 512, 5);
    matrix<float> first(2 * 5, 64), workspace(2 * 5, 64);
    matrix<half> Y(5, 64);
    gptq::cuda::decode<4, half>(on_host, fragments.view(), X.view(), Y.view(), 2, first.view());
    for (int i = 0; i < 5; ++i) {
        gptq::cuda::decode<4, half>(on_host, fragments.view(), X.view(), Y.view(), 2, workspace.view());
        CHECK(std::equal(first.data(), first.data() + 2 * 5 * 64, workspace.data()));
    }
}

TEST_CASE("decode: shapes that do not fit are refused") {
    const auto layer = gptq_test::random_plain_layer(4, false, 10, 64, 32, false, 11);
    const auto fragments = layer.pack<4>();
    const matrix<half> X(3, 64), wide(3, 72);
    matrix<half> Y(3, 10), narrow(3, 9), low(2, 10);
    matrix<float> workspace(5, 10);
    const auto weights = fragments.view();
    CHECK_THROWS_AS((gptq::cuda::decode<4, half>(on_host, weights, wide.view(), Y.view())), gptq::shape_error);
    CHECK_THROWS_AS((gptq::cuda::decode<4, half>(on_host, weights, X.view(), narrow.view())), gptq::shape_error);
    CHECK_THROWS_AS((gptq::cuda::decode<4, half>(on_host, weights, X.view(), low.view())), gptq::shape_error);
    CHECK_THROWS_AS((gptq::cuda::decode<4, half>(on_host, weights, X.view(), Y.view(), 2, workspace.view())),
                    gptq::shape_error);
}

TEST_CASE("decode: parts are no more blocks than wanted, and every warp of them has a tile") {
    const gptq::cuda::fragment_shape shape{4096, 32, 8, 64};
    CHECK(gptq::cuda::decode_parts(shape, 1) == 1);
    CHECK(gptq::cuda::decode_parts(shape, 64) == 1);
    CHECK(gptq::cuda::decode_parts(shape, 324) == 5);
    CHECK(gptq::cuda::decode_parts(shape, 100000) == 16);
    CHECK(gptq::cuda::decode_parts({64, 1, 1, 1}, 100) == 1);
}

// Faults that these tests must see. Barriers that are missing are for ThreadSanitizer to see (tests/cuda).
TEMPLATE_TEST_CASE("decode: a fault in the copies or the fragments is seen", "", gptq_test::with_loose_waits,
                   gptq_test::with_swapped_weights, gptq_test::with_swapped_inputs) {
    const auto layer = gptq_test::random_plain_layer(4, false, 64, 1024, 64, false, 12);
    CHECK(decode_on_host<4, half>(layer, 3, 1).outputs < 1.0);
    const double worst = decode_on_host<4, half, TestType>(layer, 3, 1).outputs;
    CHECK_FALSE(worst < 100.0);
}

TEST_CASE("decode: without barriers", "[.][without_barrier]") {
    const auto layer = gptq_test::random_plain_layer(4, false, 64, 512, 64, false, 13);
    decode_on_host<4, half, gptq_test::without_barrier>(layer, 3, 1);
}

TEST_CASE("decode: without barriers of warps", "[.][without_warp_barrier]") {
    const auto layer = gptq_test::random_plain_layer(4, false, 64, 1024, 64, false, 13);
    decode_on_host<4, half, gptq_test::without_warp_barrier>(layer, 3, 1);
}
