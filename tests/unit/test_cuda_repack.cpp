// Layers in the order of the CUDA kernels: what lies where, from codes and from GPTQ tensors, and back as a slab.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <random>
#include <vector>

#include <gptq/backends/cuda/dequantize_kernel.hpp>
#include <gptq/backends/cuda/fragment_order.hpp>
#include <gptq/backends/cuda/host_context.hpp>
#include <gptq/layouts/gptq.hpp>

#include "support/catch.hpp"
#include "support/fragment_layers.hpp"

namespace {

using namespace gptq::cuda;
using gptq::bfloat16;
using gptq::half;
using gptq::matrix;
using gptq_test::plain_layer;

constexpr host_launcher on_host;

bool same(const host_fragments& a, const host_fragments& b) {
    return a.words == b.words && a.scales == b.scales && a.zeros == b.zeros;
}

/// The tensors of a checkpoint that hold a layer.
template <int Bits, class Layout>
struct gptq_tensors {
    matrix<std::uint32_t> qweight, qzeros;
    matrix<half> scales;

    explicit gptq_tensors(const plain_layer& layer) {
        const std::size_t N = layer.codes.rows(), K = layer.codes.cols(), G = layer.scales.cols();
        const auto code_shape = Layout::template code_words<Bits>(N, K);
        const auto zero_shape = Layout::template zero_words<Bits>(N, G);
        qweight = {code_shape.rows, code_shape.cols};
        qzeros = {zero_shape.rows, zero_shape.cols};
        scales = {G, N};
        Layout::template pack_codes<Bits>(layer.codes.view(), qweight.view());
        Layout::template pack_zeros<Bits>(layer.zeros.view(), qzeros.view());
        for (std::size_t n = 0; n < N; ++n)
            for (std::size_t g = 0; g < G; ++g) scales(g, n) = gptq::to_half(layer.scales(n, g));
    }

    template <int Version>
    gptq_source<Bits, Version> source() const {
        return {qweight.view(), qzeros.view(), scales.view()};
    }
};

/// Repacks with the kernels, as on a device.
template <int Bits, class Source>
host_fragments repack_by_kernels(const Source& source, const slot_order& order, bool symmetric) {
    host_fragments result{order, {}, {}, {}};
    result.words.resize(order.shape.words(Bits));
    result.scales.resize(order.shape.parameters());
    if (!symmetric) result.zeros.resize(order.shape.parameters());
    repack<Bits>(on_host, source, order.shape, order.features.data(), result.words.data(), result.scales.data(),
                 symmetric ? nullptr : result.zeros.data());
    return result;
}

template <int Bits>
void check_repack(bool shuffled) {
    const bool symmetric = Bits == 2;
    auto layer = gptq_test::random_plain_layer(Bits, symmetric, 96, 160, 32, shuffled, 1);
    // Version 1 holds no zero point of 0.
    for (std::size_t i = 0; i < layer.zeros.rows() * layer.zeros.cols(); ++i)
        layer.zeros.data()[i] = std::max<std::uint8_t>(layer.zeros.data()[i], 1);
    const auto expected = layer.pack<Bits>();
    const gptq_tensors<Bits, gptq::layout::gptq_v1> v1(layer);
    const gptq_tensors<Bits, gptq::layout::gptq_v2> v2(layer);
    CAPTURE(Bits, shuffled);
    CHECK(same(repack_by_kernels<Bits>(v1.template source<1>(), expected.order, symmetric), expected));
    CHECK(same(repack_by_kernels<Bits>(v2.template source<2>(), expected.order, symmetric), expected));
    CHECK(same(pack_fragments<Bits>(v2.template source<2>(), layer.g_idx, layer.scales.cols(), symmetric), expected));
}

/// The slab of a packed layer against its weights, bit for bit.
template <int Bits, class T>
void check_slab(std::size_t N, std::size_t K, std::size_t group, bool symmetric, bool shuffled) {
    const auto layer = gptq_test::random_plain_layer(Bits, symmetric, N, K, group, shuffled, 2);
    const auto packed = layer.pack<Bits>();
    const std::size_t first_strip = N > 64 ? 1 : 0, first = 64 * first_strip,
                      rows = std::min<std::size_t>(N - first, 70);
    matrix<T> slab(rows, packed.order.shape.slots());
    const dequantize_kernel<Bits, T> kernel{packed.view(), first_strip, slab.view()};
    on_host(kernel.launch(), kernel);
    std::size_t wrong = 0, found = 0;
    for (std::size_t slot = 0; slot < slab.cols(); ++slot) {
        if (packed.order.features[slot] == slot_order::empty) continue;
        const auto k = static_cast<std::size_t>(packed.order.features[slot]);
        const auto g = static_cast<std::size_t>(layer.g_idx[k]);
        ++found;
        for (std::size_t n = first; n < first + rows; ++n) {
            const auto code = static_cast<float>(layer.codes(n, k) - layer.zeros(n, g));
            wrong += slab(n - first, slot) != gptq::narrow<T>(layer.scales(n, g) * code);
        }
    }
    CAPTURE(Bits, N, K, group, symmetric, shuffled);
    CHECK(found == K);
    CHECK(wrong == 0);
}

template <class Check>
void for_all_bits(const Check& check) {
    check.template operator()<2>();
    check.template operator()<3>();
    check.template operator()<4>();
    check.template operator()<8>();
}

}  // namespace

TEST_CASE("slots are sorted by group, and groups begin with a step") {
    const std::vector<std::int32_t> g_idx{2, 0, 2, 2, 0};
    const auto order = order_slots(1, g_idx, 3);
    CHECK(order.shape.group_steps == 1);
    CHECK(order.shape.tiles == 1);
    std::vector<std::int32_t> expected(64, slot_order::empty);
    expected[0] = 1;
    expected[1] = 4;
    expected[32] = 0;  // group 1 is empty
    expected[33] = 2;
    expected[34] = 3;
    CHECK(order.features == expected);
    CHECK_FALSE(order.natural);
}

TEST_CASE("slots of whole steps in order are the input features themselves") {
    std::vector<std::int32_t> g_idx(100);
    for (std::size_t k = 0; k < 100; ++k) g_idx[k] = static_cast<std::int32_t>(k / 48);
    CHECK(order_slots(1, g_idx, 3).natural);
    CHECK(order_slots(1, g_idx, 3).shape.slots() == 128);
    for (std::size_t k = 0; k < 100; ++k) g_idx[k] = static_cast<std::int32_t>(k / 40);
    CHECK_FALSE(order_slots(1, g_idx, 3).natural);  // 40 is not a multiple of 16
}

TEST_CASE("layers that cannot be ordered are refused") {
    CHECK_THROWS_AS(order_slots(1, {}, 1), gptq::shape_error);
    CHECK_THROWS_AS(order_slots(0, std::vector<std::int32_t>{0}, 1), gptq::shape_error);
    CHECK_THROWS_AS(order_slots(1, std::vector<std::int32_t>{0, 2}, 2), gptq::shape_error);
    CHECK_THROWS_AS(order_slots(1, std::vector<std::int32_t>{0, -1}, 2), gptq::shape_error);
    CHECK_THROWS_AS(order_slots(1, std::vector<std::int32_t>{0}, 0), gptq::shape_error);
}

TEST_CASE("a lane holds the fragments A of its tile as mma_16x8x16 wants them") {
    // 8 bits: every word is two pairs, so that the codes of the picture can be written down.
    matrix<std::uint8_t> codes(64, 64);
    for (std::size_t i = 0; i < 64 * 64; ++i) codes.data()[i] = static_cast<std::uint8_t>(i * 7 % 251);
    const matrix<float> scales(64, 1);
    const matrix<std::uint8_t> zeros(64, 1);
    const std::vector<std::int32_t> g_idx(64, 0);
    const auto packed = pack_fragments<8>(code_source{codes.view(), scales.view(), zeros.view()}, g_idx, 1, true);
    for (std::size_t lane = 0; lane < 32; ++lane)
        for (std::size_t m = 0; m < 4; ++m)
            for (std::size_t step = 0; step < 4; ++step) {
                // Word 2 (4 m + step) has a[0] and a[1], the next one a[2] and a[3].
                const std::size_t word = 2 * (4 * m + step), at = (word / 4 * 32 + lane) * 4 + word % 4;
                const std::size_t n = 16 * m + lane / 4, k = 16 * step + 2 * (lane % 4);
                const auto pairs = [&](std::size_t slot) {
                    const auto column = [&](std::size_t i) {
                        return codes(n, slot + i) + 256u * codes(n + 8, slot + i);
                    };
                    return column(0) + (column(1) << 16);
                };
                CHECK(packed.words[at] == pairs(k));
                CHECK(packed.words[at + 1] == pairs(k + 8));
            }
}

TEST_CASE("GPTQ tensors of both versions repack to what their codes do") {
    for_all_bits([]<int Bits>() {
        check_repack<Bits>(false);
        check_repack<Bits>(true);
    });
}

TEST_CASE("zero points of any bits are read as the layouts of the files read them") {
    std::mt19937 random(9);
    for_all_bits([&]<int Bits>() {
        const std::size_t N = 64, G = 5;
        matrix<std::uint32_t> words(G, N * Bits / 32);
        std::generate_n(words.data(), words.rows() * words.cols(),
                        [&] { return static_cast<std::uint32_t>(random()); });
        matrix<std::uint8_t> v1(N, G), v2(N, G);
        gptq::layout::gptq_v1::unpack_zeros<Bits>(words.view(), v1.view());
        gptq::layout::gptq_v2::unpack_zeros<Bits>(words.view(), v2.view());
        const gptq_source<Bits, 1> source1{{}, words.view(), {}};
        const gptq_source<Bits, 2> source2{{}, words.view(), {}};
        std::size_t wrong = 0;
        for (std::size_t n = 0; n < N; ++n)
            for (std::size_t g = 0; g < G; ++g)
                wrong += source1.zero(n, g) != v1(n, g) || source2.zero(n, g) != v2(n, g);
        CHECK(wrong == 0);
    });
}

TEST_CASE("a slab holds the layer's weights, rounded once") {
    for_all_bits([]<int Bits>() {
        check_slab<Bits, half>(1, 17, 8, false, true);
        check_slab<Bits, bfloat16>(64, 64, 64, true, false);
        check_slab<Bits, half>(150, 200, 48, false, true);
        check_slab<Bits, bfloat16>(100, 300, 300, false, false);
        check_slab<Bits, half>(65, 128, 32, true, true);
    });
}
