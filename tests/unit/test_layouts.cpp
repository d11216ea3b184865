// The bytes of the layouts, against numbers written down by hand and a reader that knows bits only.
#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include <gptq/layouts/compressed_tensors.hpp>
#include <gptq/layouts/gptq.hpp>
#include <gptq/xtensor/pack.hpp>

#include "support/catch.hpp"

namespace {

using gptq::layout::compressed_tensors;
using gptq::layout::gptq_v1;
using gptq::layout::gptq_v2;

using words = std::vector<std::uint32_t>;

/// A layer of random codes, zero points and half scales; with `shuffled`, the groups of its columns are in no order.
gptq::quantized_layer random_layer(int bits, std::size_t N, std::size_t K, std::size_t group, bool sym, bool shuffled) {
    std::mt19937 random(static_cast<unsigned>(bits) * 7919u + static_cast<unsigned>(N + K));
    const auto code = [&](unsigned lowest) {
        return static_cast<std::uint8_t>(lowest + random() % ((1u << bits) - lowest));
    };
    gptq::quantized_layer q;
    gptq::allocate(q, bits, sym, N, K, group);
    for (auto& c : q.codes) c = code(0);
    for (auto& z : q.zeros) z = sym ? static_cast<std::uint8_t>(1u << (bits - 1)) : code(1);
    for (auto& s : q.scales) s = gptq::round_to_half(1e-3f * static_cast<float>(1 + random() % 1000));
    if (shuffled) std::shuffle(q.g_idx.begin(), q.g_idx.end(), random);
    return q;
}

void require_equal(const gptq::quantized_layer& a, const gptq::quantized_layer& b) {
    REQUIRE(a.bits == b.bits);
    REQUIRE(a.sym == b.sym);
    REQUIRE(a.group_features == b.group_features);
    REQUIRE(a.codes == b.codes);
    REQUIRE(a.scales == b.scales);
    REQUIRE(a.zeros == b.zeros);
    REQUIRE(a.g_idx == b.g_idx);
}

/// `bits` bits from bit `first` on of a stream of words that start at `data` and lie `stride` apart, one bit at a time.
unsigned read_bits(const gptq::tensor2<std::int32_t>& m, std::size_t start, std::size_t stride, std::size_t first,
                   int bits) {
    unsigned value = 0;
    for (int i = bits - 1; i >= 0; --i) {
        const std::size_t bit = first + static_cast<std::size_t>(i);
        const auto word = static_cast<std::uint32_t>(m.data()[start + bit / 32 * stride]);
        value = value * 2 + ((word >> (bit % 32)) & 1u);
    }
    return value;
}

/// The words of 32 codes that lie along the packed direction.
template <class Code>
words packed_column(int bits, Code code) {
    gptq::quantized_layer q = random_layer(bits, 32, 32, 32, true, false);
    for (std::size_t k = 0; k < 32; ++k) q.codes(5, k) = static_cast<std::uint8_t>(code(k));
    const auto t = gptq::pack<gptq_v2>(q);
    words out;
    for (std::size_t r = 0; r < t.qweight.shape()[0]; ++r) out.push_back(static_cast<std::uint32_t>(t.qweight(r, 5)));
    return out;
}

/// The words of 32 equal zero points.
template <class Layout>
words packed_zeros(int bits, unsigned zero) {
    gptq::quantized_layer q = random_layer(bits, 32, 32, 32, false, false);
    for (auto& z : q.zeros) z = static_cast<std::uint8_t>(zero);
    const auto t = gptq::pack<Layout>(q);
    return words(t.qzeros.begin(), t.qzeros.end());
}

template <class Layout>
std::string refusal(const gptq::quantized_layer& q) {
    try {
        gptq::pack<Layout>(q);
    } catch (const gptq::error& e) {
        return e.what();
    }
    return "packed";
}

}  // namespace

TEST_CASE("3-bit codes are one dense stream of 96 bits") {
    CHECK(packed_column(3, [](std::size_t i) { return i % 8; }) == words{0x88fac688, 0xc688fac6, 0xfac688fa});
    CHECK(packed_column(3, [](std::size_t) { return 1; }) == words{0x49249249, 0x92492492, 0x24924924});
}

TEST_CASE("2, 4 and 8 bits have their first code in the lowest bits") {
    const auto counting = [](unsigned modulus) { return [modulus](std::size_t i) { return i % modulus; }; };
    CHECK(packed_column(2, counting(4)) == words{0xe4e4e4e4, 0xe4e4e4e4});
    CHECK(packed_column(4, counting(16)) == words{0x76543210, 0xfedcba98, 0x76543210, 0xfedcba98});
    CHECK(packed_column(8, counting(256)) ==
          words{0x03020100, 0x07060504, 0x0b0a0908, 0x0f0e0d0c, 0x13121110, 0x17161514, 0x1b1a1918, 0x1f1e1d1c});
}

TEST_CASE("symmetric zero points as the files of others have them") {
    CHECK(packed_zeros<gptq_v2>(3, 4) == words{0x24924924, 0x49249249, 0x92492492});
    CHECK(packed_zeros<gptq_v1>(3, 4) == words{0xdb6db6db, 0xb6db6db6, 0x6db6db6d});
    CHECK(packed_zeros<gptq_v1>(2, 2) == words(2, 0x55555555));
    CHECK(packed_zeros<gptq_v1>(4, 8) == words(4, 0x77777777));
    CHECK(packed_zeros<gptq_v2>(4, 8) == words(4, 0x88888888));
    CHECK(packed_zeros<gptq_v1>(8, 128) == words(8, 0x7f7f7f7f));
}

TEST_CASE("gptq: a reader of single bits finds every code and zero point") {
    const int bits = GENERATE(2, 3, 4, 8);
    const std::size_t N = 64, K = 160;
    const auto q = random_layer(bits, N, K, 48, false, true);
    const auto v1 = gptq::pack<gptq_v1>(q);
    const auto v2 = gptq::pack<gptq_v2>(q);
    const auto b = static_cast<std::size_t>(bits);
    REQUIRE(v1.qweight == v2.qweight);
    REQUIRE((v2.qweight.shape()[0] == K * b / 32 && v2.qweight.shape()[1] == N));
    REQUIRE((v2.qzeros.shape()[0] == 4 && v2.qzeros.shape()[1] == N * b / 32));
    REQUIRE((v2.scales.shape()[0] == 4 && v2.scales.shape()[1] == N));
    for (std::size_t n = 0; n < N; ++n) {
        for (std::size_t k = 0; k < K; ++k) REQUIRE(read_bits(v2.qweight, n, N, k * b, bits) == q.codes(n, k));
        for (std::size_t g = 0; g < 4; ++g) {
            const std::size_t row = g * v2.qzeros.shape()[1];
            REQUIRE(read_bits(v2.qzeros, row, 1, n * b, bits) == q.zeros(n, g));
            REQUIRE(read_bits(v1.qzeros, row, 1, n * b, bits) == q.zeros(n, g) - 1u);
            REQUIRE(gptq::to_float(v2.scales(g, n)) == q.scales(n, g));
        }
    }
}

TEST_CASE("compressed-tensors: a reader of single bits finds every code and zero point") {
    const int bits = GENERATE(4, 8);
    const std::size_t N = 13, K = 50;
    const auto q = random_layer(bits, N, K, 16, false, false);
    const auto t = gptq::pack<compressed_tensors>(q);
    const auto b = static_cast<std::size_t>(bits);
    const std::size_t row_words = (K * b + 31) / 32;
    REQUIRE((t.qweight.shape()[0] == N && t.qweight.shape()[1] == row_words));
    REQUIRE((t.qzeros.shape()[0] == (N * b + 31) / 32 && t.qzeros.shape()[1] == 4));
    REQUIRE((t.scales.shape()[0] == N && t.scales.shape()[1] == 4));
    for (std::size_t n = 0; n < N; ++n) {
        for (std::size_t k = 0; k < K; ++k)
            REQUIRE(read_bits(t.qweight, n * row_words, 1, k * b, bits) == q.codes(n, k));
        for (std::size_t bit = K * b; bit < row_words * 32; ++bit)
            REQUIRE(read_bits(t.qweight, n * row_words, 1, bit, 1) == 0);
        for (std::size_t g = 0; g < 4; ++g) {
            REQUIRE(read_bits(t.qzeros, g, 4, n * b, bits) == q.zeros(n, g));
            REQUIRE(gptq::to_float(t.scales(n, g)) == q.scales(n, g));
        }
    }
}

TEMPLATE_TEST_CASE("what is packed comes back, whatever its bits, groups and order", "", gptq_v1, gptq_v2,
                   compressed_tensors) {
    const int bits = GENERATE(2, 3, 4, 8);
    const bool sym = GENERATE(true, false);
    const bool shuffled = GENERATE(true, false);
    if (!TestType::supports(bits)) return;
    for (const auto& [N, K, group] :
         {std::array<std::size_t, 3>{32, 32, 32}, {96, 64, 16}, {32, 576, 128}, {64, 224, 224}, {160, 96, 40}}) {
        const auto q = random_layer(bits, N, K, group, sym, shuffled);
        require_equal(gptq::unpack<TestType>(gptq::pack<TestType>(q)), q);
    }
}

TEST_CASE("compressed-tensors has no zero points for symmetric layers") {
    const auto q = random_layer(4, 13, 50, 16, true, false);
    const auto t = gptq::pack<compressed_tensors>(q);
    CHECK(t.qzeros.size() == 0);
    require_equal(gptq::unpack<compressed_tensors>(t), q);
    auto lying = q;
    lying.zeros(3, 1) = 7;
    CHECK(refusal<compressed_tensors>(lying).find("symmetric") != std::string::npos);
}

TEST_CASE("gptq v1 refuses a zero point of 0 and says where it is") {
    auto q = random_layer(4, 32, 64, 16, false, false);
    q.zeros(7, 3) = 0;
    CHECK_THROWS_AS(gptq::pack<gptq_v1>(q), gptq::format_error);
    CHECK(refusal<gptq_v1>(q).find("row 7, group 3") != std::string::npos);
    require_equal(gptq::unpack<gptq_v2>(gptq::pack<gptq_v2>(q)), q);
}

TEST_CASE(
    "gptq v1 reads back a zero point of 0 as writers store it that subtract 1 from every field of a word at once") {
    const int bits = GENERATE(2, 4, 8);
    auto q = random_layer(bits, 32, 32, 32, false, false);
    for (const std::size_t row : {0u, 4u, 5u, 31u}) q.zeros(row, 0) = 0;
    auto t = gptq::pack<gptq_v2>(q);
    const std::uint32_t one_a_field = bits == 2 ? 0x55555555u : bits == 4 ? 0x11111111u : 0x01010101u;
    for (auto& word : t.qzeros)
        word = static_cast<std::int32_t>(static_cast<std::uint32_t>(word) - one_a_field);  // borrows from neighbours
    require_equal(gptq::unpack<gptq_v1>(t), q);
}

TEST_CASE("gptq v1 of 3 bits, whose fields straddle words, reads a field of all ones as a zero point of 0") {
    auto q = random_layer(3, 32, 32, 32, false, false);
    q.zeros(10, 0) = 1;  // the field that straddles the first two words
    auto t = gptq::pack<gptq_v1>(q);
    t.qzeros(0, 0) = static_cast<std::int32_t>(static_cast<std::uint32_t>(t.qzeros(0, 0)) | 3u << 30);
    t.qzeros(0, 1) |= 1;
    q.zeros(10, 0) = 0;
    require_equal(gptq::unpack<gptq_v1>(t), q);
}

TEST_CASE("pack refuses what a file cannot hold, and names it") {
    auto q = random_layer(4, 32, 64, 16, false, false);
    SECTION("numbers of bits without a form") {
        const auto five = random_layer(5, 32, 64, 16, false, false);
        CHECK_THROWS_AS(gptq::pack<gptq_v2>(five), gptq::unsupported_error);
        CHECK_THROWS_AS(gptq::pack<compressed_tensors>(random_layer(3, 32, 64, 16, false, false)),
                        gptq::unsupported_error);
    }
    SECTION("shapes that are no multiples of 32") {
        CHECK_THROWS_AS(gptq::pack<gptq_v2>(random_layer(4, 33, 64, 16, false, false)), gptq::shape_error);
        CHECK(refusal<gptq_v2>(random_layer(4, 32, 40, 16, false, false)).find("[32, 40]") != std::string::npos);
    }
    SECTION("a code that has more bits") {
        q.codes(5, 17) = 16;
        CHECK(refusal<gptq_v2>(q).find("code 16 at row 5, column 17") != std::string::npos);
    }
    SECTION("a scale that is no half") {
        q.scales(6, 2) = 0.1f;
        CHECK(refusal<gptq_v2>(q).find("row 6, group 2") != std::string::npos);
    }
    SECTION("a group that does not exist") {
        q.g_idx(9) = 4;
        CHECK(refusal<gptq_v2>(q).find("g_idx[9] is 4") != std::string::npos);
    }
}

TEST_CASE("unpack refuses tensors that do not fit together") {
    auto t = gptq::pack<gptq_v2>(random_layer(4, 32, 64, 16, true, false));
    SECTION("codes of another shape") {
        t.in_features = 96;
        CHECK_THROWS_AS(gptq::unpack<gptq_v2>(t), gptq::shape_error);
    }
    SECTION("fewer groups than input features need") {
        t.group_features = 8;
        CHECK_THROWS_AS(gptq::unpack<gptq_v2>(t), gptq::shape_error);
    }
    SECTION("no groups at all") {
        t.group_features = 0;
        CHECK_THROWS_AS(gptq::unpack<gptq_v2>(t), gptq::shape_error);
    }
    SECTION("zero points of another shape") {
        t.qzeros = gptq::make_tensor2<std::int32_t>(4, 3);
        CHECK_THROWS_AS(gptq::unpack<gptq_v2>(t), gptq::shape_error);
    }
    SECTION("g_idx out of range") {
        t.g_idx(63) = -1;
        CHECK_THROWS_AS(gptq::unpack<gptq_v2>(t), gptq::format_error);
    }
    SECTION("g_idx of another length") {
        t.g_idx = gptq::make_tensor1<std::int32_t>(5);
        CHECK_THROWS_AS(gptq::unpack<gptq_v2>(t), gptq::shape_error);
    }
    SECTION("an infinite scale") {
        t.scales(2, 3).bits = 0x7c00;
        CHECK_THROWS_AS(gptq::unpack<gptq_v2>(t), gptq::non_finite_error);
    }
    SECTION("bits that nobody has") {
        t.bits = 9;
        CHECK_THROWS_AS(gptq::unpack<gptq_v2>(t), gptq::unsupported_error);
    }
    SECTION("sizes that overflow") {
        t.in_features = std::size_t{1} << 61;
        CHECK_THROWS_AS(gptq::unpack<gptq_v2>(t), gptq::shape_error);
        CHECK_THROWS_AS(gptq::unpack<compressed_tensors>(t), gptq::shape_error);
    }
}

TEST_CASE("unpack fills in what files leave out, and does not believe that a layer is symmetric") {
    const auto q = random_layer(4, 32, 64, 16, true, false);
    auto t = gptq::pack<gptq_v2>(q);
    t.g_idx = gptq::tensor1<std::int32_t>();
    require_equal(gptq::unpack<gptq_v2>(t), q);
    t.qzeros(0, 0) ^= 1;
    CHECK_FALSE(gptq::unpack<gptq_v2>(t).sym);
}

TEST_CASE("unpack for a scheme holds the layer to it") {
    using w4 = gptq::scheme<4, gptq::group_size<16>, gptq::symmetric, gptq::natural_order>;
    using w4act = gptq::scheme<4, gptq::group_size<16>, gptq::symmetric, gptq::act_order>;
    const auto q = random_layer(4, 32, 64, 16, true, false);
    const auto shuffled = gptq::pack<gptq_v2>(random_layer(4, 32, 64, 16, true, true));
    const gptq::quantized<w4> back = gptq::unpack<gptq_v2, w4>(gptq::pack<gptq_v2>(q));
    require_equal(back, q);
    CHECK_NOTHROW(gptq::unpack<gptq_v2, w4act>(shuffled));
    CHECK_THROWS_AS((gptq::unpack<gptq_v2, w4>(shuffled)), gptq::format_error);
    const auto refuses = [&](int bits, std::size_t group, bool sym) {
        const auto t = gptq::pack<gptq_v2>(random_layer(bits, 32, 64, group, sym, false));
        CHECK_THROWS_AS((gptq::unpack<gptq_v2, w4>(t)), gptq::format_error);
    };
    refuses(3, 16, true);
    refuses(4, 32, true);
    refuses(4, 16, false);
}
