// prepare and matmul of the CUDA backend, its kernels run on the host: from layers and from checkpoint tensors, against
// sums in double.
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <random>

#include <gptq/backends/cuda/host_executed_backend.hpp>
#include <gptq/gptq.hpp>

#include "support/catch.hpp"
#include "support/random_layer.hpp"

using gptq::cuda::host_executed_backend;
using gptq::cuda::host_machine;

namespace {

/// Any layer: codes, zero points and groups at random, a short last group, the input features in any order of groups.
gptq::quantized_layer random_layer(int bits, std::size_t N, std::size_t K, std::size_t group_features, bool reordered,
                                   unsigned seed) {
    std::mt19937 random(seed);
    gptq::quantized_layer q;
    gptq::allocate(q, bits, false, N, K, group_features);
    const auto code = [&] { return static_cast<std::uint8_t>(random() % (1u << bits)); };
    for (std::uint8_t& c : q.codes) c = code();
    for (std::uint8_t& z : q.zeros) z = std::max<std::uint8_t>(code(), 1);  // the v1 layout holds no 0
    for (float& s : q.scales) s = gptq::round_to_half(0.01f + 0.001f * static_cast<float>(random() % 16));
    if (reordered) std::shuffle(q.g_idx.begin(), q.g_idx.end(), random);
    return q;
}

/// Y has to be X Wq' but for the rounding of X and Y to T and of the sums. digits: of T's mantissa.
template <class T>
void check_product(const gptq::tensor2<float>& X, const gptq::quantized_layer& q, const gptq::tensor2<float>& Y,
                   int digits) {
    const auto W = gptq::dequantize(q);
    REQUIRE(Y.shape()[0] == X.shape()[0]);
    REQUIRE(Y.shape()[1] == q.out_features());
    double worst = 0.0;
    for (std::size_t r = 0; r < X.shape()[0]; ++r)
        for (std::size_t n = 0; n < q.out_features(); ++n) {
            double sum = 0.0, magnitude = 0.0;
            for (std::size_t k = 0; k < q.in_features(); ++k) {
                const double term = double{X(r, k)} * double{W(n, k)};
                sum += term;
                magnitude += std::fabs(term);
            }
            worst = std::max(worst, std::fabs(double{Y(r, n)} - sum) / magnitude);
        }
    CHECK(worst <= std::ldexp(2.0, -digits));
    CHECK(worst > 0.0);  // something was rounded: Y is not the reference itself
}

/// The same bits; every product is deterministic.
bool same(const gptq::tensor2<float>& a, const gptq::tensor2<float>& b) { return a == b; }

host_executed_backend machine_of(std::size_t blocks) {
    host_machine machine;
    machine.blocks = blocks;
    return host_executed_backend(machine);
}

}  // namespace

TEST_CASE("prepared layers multiply: all bits, orders, few rows and many, one part and several", "[many]") {
    for (const int bits : {2, 3, 4, 8})
        for (const bool reordered : {false, true}) {
            const auto q = random_layer(bits, 70, 264, 64, reordered, 3);
            for (const std::size_t blocks : {std::size_t{1}, std::size_t{6}}) {
                const auto m = gptq::prepare(q, machine_of(blocks));
                CHECK(m.out_features() == 70);
                CHECK(m.in_features() == 264);
                for (const std::size_t rows : {std::size_t{1}, std::size_t{33}}) {
                    CAPTURE(bits, reordered, blocks, rows);
                    const auto X = gptq_test::random_inputs(rows, 264);
                    check_product<gptq::half>(X, q, gptq::matmul(X, m), 11);
                    check_product<gptq::bfloat16>(X, q, gptq::matmul<gptq::bfloat16>(X, m), 8);
                }
            }
        }
}

TEST_CASE("layers are prepared from the tensors of a checkpoint", "[many]") {
    const auto X = gptq_test::random_inputs(2, 96);
    for (const int bits : {2, 3, 4, 8})
        for (const bool reordered : {false, true}) {
            CAPTURE(bits, reordered);
            const auto q = random_layer(bits, 64, 96, 32, reordered, 5);
            const auto expected = gptq::matmul(X, gptq::prepare(q, host_executed_backend{}));
            const auto v1 = gptq::pack<gptq::layout::gptq_v1>(q);
            const auto v2 = gptq::pack<gptq::layout::gptq_v2>(q);
            CHECK(same(gptq::matmul(X, gptq::prepare(v1, host_executed_backend{})), expected));
            CHECK(same(gptq::matmul(X, gptq::prepare(v2, host_executed_backend{})), expected));
        }
    const auto q = random_layer(4, 64, 96, 32, false, 5);
    const auto expected = gptq::matmul(X, gptq::prepare(q, host_executed_backend{}));
    auto without_g_idx = gptq::pack<gptq::layout::gptq_v2>(q);
    without_g_idx.g_idx = gptq::make_tensor1<std::int32_t>(0);
    CHECK(same(gptq::matmul(X, gptq::prepare(without_g_idx, host_executed_backend{})), expected));
    const auto compressed = gptq::pack<gptq::layout::compressed_tensors>(q);
    CHECK(same(gptq::matmul(X, gptq::prepare(compressed, host_executed_backend{})), expected));
}

TEST_CASE("symmetric layers leave their zero points out") {
    auto q = random_layer(4, 64, 64, 64, false, 6);
    std::fill(q.zeros.begin(), q.zeros.end(), std::uint8_t{8});
    const auto with = gptq::prepare(q, host_executed_backend{});
    q.sym = true;
    const auto without = gptq::prepare(q, host_executed_backend{});
    CHECK(with.bytes() == 64 * 64 / 2 + 64 * 3);
    CHECK(without.bytes() == 64 * 64 / 2 + 64 * 2);
    const auto X = gptq_test::random_inputs(3, 64);
    CHECK(same(gptq::matmul(X, with), gptq::matmul(X, without)));
}

TEST_CASE("what does not fit is refused") {
    auto q = random_layer(4, 64, 64, 32, false, 8);
    const auto m = gptq::prepare(q, host_executed_backend{});
    CHECK_THROWS_AS(gptq::matmul(gptq_test::random_inputs(1, 63), m), gptq::shape_error);
    CHECK(gptq::matmul(gptq::make_tensor2<float>(0, 64), m).shape()[0] == 0);
    auto t = gptq::pack<gptq::layout::gptq_v2>(q);
    t.group_features = 16;
    CHECK_THROWS_AS(gptq::prepare(t, host_executed_backend{}), gptq::shape_error);
    q.g_idx(3) = 2;
    CHECK_THROWS_AS(gptq::prepare(q, host_executed_backend{}), gptq::shape_error);
    q.g_idx(3) = 0;
    q.levels.assign(16, 0.5f);
    CHECK_THROWS_AS(gptq::prepare(q, host_executed_backend{}), gptq::unsupported_error);
    q.bits = 5;
    CHECK_THROWS_AS(gptq::prepare(q, host_executed_backend{}), gptq::unsupported_error);
}
