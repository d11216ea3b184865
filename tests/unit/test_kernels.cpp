// Every kernel of every instruction set that this machine has, against the definition of the product in double.
#include <algorithm>
#include <array>
#include <atomic>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <fstream>
#include <initializer_list>
#include <iterator>
#include <limits>
#include <numeric>
#include <random>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <gptq/gptq.hpp>
#include <gptq/kernels/avx2.hpp>
#include <gptq/kernels/avx512.hpp>
#include <gptq/kernels/avx512_vnni.hpp>
#include <gptq/reference_matmul.hpp>

#include "support/catch.hpp"
#include "support/sanitized.hpp"

namespace {

using gptq::isa;

/// Those that the machine has.
std::vector<isa> usable_isas() {
    std::vector<isa> usable;
    std::copy_if(gptq::all_isas.begin(), gptq::all_isas.end(), std::back_inserter(usable), gptq::supports);
    return usable;
}

struct layer_shape {
    int bits;
    bool sym;
    std::size_t out_features, in_features, group_features;
    bool shuffled;  // g_idx in no order, groups of unequal size
};

gptq::quantized_layer make_layer(const layer_shape& shape, std::mt19937& random) {
    gptq::quantized_layer q;
    gptq::allocate(q, shape.bits, shape.sym, shape.out_features, shape.in_features, shape.group_features);
    const unsigned codes = 1u << shape.bits;
    for (auto& c : q.codes) c = static_cast<std::uint8_t>(random() % codes);
    for (auto& z : q.zeros) z = static_cast<std::uint8_t>(shape.sym ? codes / 2 : random() % codes);
    for (auto& s : q.scales) s = 0.001f * static_cast<float>(1 + random() % 100);
    if (shape.shuffled)
        for (auto& g : q.g_idx) g = static_cast<std::int32_t>(random() % q.groups());
    return q;
}

/// Scales as files hold them, which panels hold in binary16: also some that are too small for a full exponent there, and
/// negative ones.
void round_scales(gptq::quantized_layer& q, std::mt19937& random) {
    for (auto& s : q.scales) {
        const float factor = random() % 8 == 0 ? 1e-3f : random() % 8 == 0 ? -1.0f : 1.0f;
        s = gptq::round_to_half(factor * s);
    }
}

gptq::matrix<float> make_inputs(std::size_t rows, std::size_t cols, std::mt19937& random) {
    std::normal_distribution<float> normal;
    gptq::matrix<float> X(rows, cols);
    for (std::size_t i = 0; i < rows * cols; ++i)
        X.data()[i] = normal(random) * (random() % 50 == 0 ? 30.0f : 1.0f) + 0.25f;
    return X;
}

/// What is expected of a product, and how much rounding in float may cost each output.
struct expectation {
    gptq::matrix<double> outputs;
    gptq::matrix<double> unit;  // 2^-24 of the sum of the terms' magnitudes
};

template <gptq::Activation A>
expectation expect(const gptq::quantized_layer& q, gptq::matrix_view<const float> X) {
    const std::size_t N = q.out_features();
    expectation e{gptq::matrix<double>(X.rows, N), gptq::matrix<double>(X.rows, N)};
    gptq::reference_matmul<A>(q.view(), X, e.outputs.view());
    const auto levels = gptq::level_table(q.levels);
    for (std::size_t t = 0; t < X.rows; ++t)
        for (std::size_t n = 0; n < N; ++n) {
            double sum = 1e-30;
            for (std::size_t k = 0; k < X.cols; ++k) {
                const auto g = static_cast<std::size_t>(q.g_idx(k));
                const double steps = std::fabs(double{levels[q.codes(n, k)]}) + q.zeros(n, g);
                sum += std::fabs(double{X(t, k)} * double{q.scales(n, g)}) * steps;
            }
            e.unit(t, n) = sum * 0x1p-24;
        }
    return e;
}

/// The largest error in units of what rounding may cost.
double worst_error(const expectation& e, gptq::matrix_view<const float> Y) {
    double worst = 0.0;
    for (std::size_t t = 0; t < Y.rows; ++t)
        for (std::size_t n = 0; n < Y.cols; ++n)
            worst = std::max(worst, std::fabs(double{Y(t, n)} - e.outputs(t, n)) / e.unit(t, n));
    return worst;
}

bool same(const gptq::tensor2<float>& a, const gptq::tensor2<float>& b) {
    return a.shape() == b.shape() && std::equal(a.data(), a.data() + a.size(), b.data());
}

/// Checks the first `rows` rows of X for all `counts` of them.
template <gptq::Activation A>
void check(const gptq::quantized_layer& q, const gptq::matrix<float>& X, std::span<const std::size_t> counts,
           std::span<const isa> isas) {
    const expectation expected = expect<A>(q, X.view());
    const auto m = gptq::prepare<A>(q);
    for (const isa which : isas)
        for (const std::size_t rows : counts) {
            const auto part = X.view().block(0, rows, 0, X.cols());
            const double worst = worst_error(expected, gptq::view_of(gptq::matmul(part, m, {.instructions = which})));
            if (worst < 12.0) continue;  // CHECK for each would take most of the time
            CAPTURE(gptq::isa_name(which), A::levels, q.bits, q.sym, q.out_features(), q.in_features(),
                    q.group_features, rows);
            CHECK(worst < 12.0);
        }
}

/// Sanitizers make each product slow.
#ifdef GPTQ_TEST_SANITIZED
constexpr std::array<std::size_t, 2> tested_groups = {8, 50};
constexpr std::array<std::size_t, 1> cached_rows = {23};
constexpr std::size_t cached_features = 5;
#else
constexpr std::array<std::size_t, 6> tested_groups = {1, 8, 32, 50, 128, 1000};
constexpr std::array<std::size_t, 3> cached_rows = {23, 37, 62};
constexpr std::size_t cached_features = 33;
#endif

template <gptq::Activation A>
void check_all_shapes() {
    const auto isas = usable_isas();
    std::mt19937 random(7);
    constexpr std::array<std::size_t, 7> counts = {1, 2, 3, 5, 16, 17, 33};
    for (const int bits : {2, 3, 4, 5, 6, 7, 8})
        for (const std::size_t group : tested_groups)
            for (const bool shuffled : {false, true})
                for (const bool sym : {false, true}) {
                    const std::size_t N = 1 + random() % 40, K = 1 + random() % 300;
                    auto q = make_layer({bits, sym, N, K, std::min(group, K), shuffled}, random);
                    const auto X = make_inputs(33, K, random);
                    check<A>(q, X, counts, isas);
                    round_scales(q, random);
                    check<A>(q, X, counts, isas);
                }
    SUCCEED();
}

}  // namespace

TEST_CASE("instruction sets that are not tested here") {
    for (const isa which : gptq::all_isas)
        if (!gptq::supports(which)) WARN("skipped: this machine has no " + std::string(gptq::isa_name(which)));
    CHECK(gptq::supports(isa::portable));
}

TEST_CASE("exact products, all bits, groups and orders, on every instruction set") {
    check_all_shapes<gptq::activation::exact>();
}
TEST_CASE("products with 16-bit inputs, all bits, groups and orders, on every instruction set") {
    check_all_shapes<gptq::activation::int16>();
}
TEST_CASE("products with 8-bit inputs, all bits, groups and orders, on every instruction set") {
    check_all_shapes<gptq::activation::int8>();
}

namespace {

/// Levels of any value, whole ones that a byte holds, and whole ones that no byte holds.
enum class kind { any, whole, wide };

void add_levels(gptq::quantized_layer& q, kind of, std::mt19937& random) {
    std::normal_distribution<float> normal;
    q.levels.resize(std::size_t{1} << q.bits);
    for (float& level : q.levels) {
        const auto whole = static_cast<float>(static_cast<int>(random() % 128)) - 60.0f;
        level = of == kind::any ? normal(random) : of == kind::whole ? 0.25f * whole : 1000.0f * whole;
    }
    q.levels[1] = of == kind::wide ? 1.0f : q.levels[1];
}

template <gptq::Activation A>
void check_levels(std::initializer_list<int> all_bits) {
    std::mt19937 random(31);
    constexpr std::array<std::size_t, 4> counts = {1, 3, 17, 33};
    const auto isas = usable_isas();
    for (const int bits : all_bits)
        for (const kind of : {kind::any, kind::whole, kind::wide})
            for (const bool shuffled : {false, true}) {
                const std::size_t N = 1 + random() % 70, K = 1 + random() % 300;
                auto q = make_layer({bits, !shuffled, N, K, std::min(std::size_t{50}, K), shuffled}, random);
                add_levels(q, of, random);
                const auto X = make_inputs(33, K, random);
                check<A>(q, X, counts, isas);
                round_scales(q, random);
                check<A>(q, X, counts, isas);
            }
    SUCCEED();
}

}  // namespace

TEMPLATE_TEST_CASE("levels of every kind, to 4 bits, all orders, on every instruction set", "", gptq::activation::exact,
                   gptq::activation::int16, gptq::activation::int8) {
    check_levels<TestType>({2, 3, 4});
}
// QEMU 7.2 gathers wrong numbers for AVX2: scripts/other_processors leaves these out.
TEMPLATE_TEST_CASE("levels of every kind, from 5 bits, all orders, on every instruction set", "[gather]",
                   gptq::activation::exact, gptq::activation::int16, gptq::activation::int8) {
    check_levels<TestType>({5, 6, 7, 8});
}

TEMPLATE_TEST_CASE("the largest levels and inputs do not overflow", "", gptq::activation::int16,
                   gptq::activation::int8) {
    std::mt19937 random(32);
    constexpr std::array<std::size_t, 2> counts = {1, 4};
    auto q = make_layer({4, false, 16, 4096, 4096, false}, random);
    add_levels(q, kind::whole, random);
    for (std::size_t c = 0; c < 16; ++c) q.levels[c] = c < 15 ? 0.0f : 127.0f;
    std::fill(q.codes.begin(), q.codes.end(), std::uint8_t{15});
    q.zeros.fill(0);
    for (const float input : {-3.0f, 3.0f}) {
        gptq::matrix<float> X(4, 4096);
        std::fill_n(X.data(), 4 * 4096, input);
        check<TestType>(q, X, counts, usable_isas());
    }
}

TEST_CASE("a layer with another number of levels than codes is refused") {
    std::mt19937 random(33);
    auto q = make_layer({4, false, 16, 32, 32, false}, random);
    q.levels.assign(15, 1.0f);
    CHECK_THROWS_AS(gptq::prepare<gptq::activation::exact>(q), gptq::shape_error);
}

TEMPLATE_TEST_CASE("any number of rows from 1 to 33, and blocks of rows", "", gptq::activation::exact,
                   gptq::activation::int16, gptq::activation::int8) {
    std::mt19937 random(8);
    const auto q = make_layer({4, false, 35, 160, 64, true}, random);
    std::array<std::size_t, 35> counts;
    std::iota(counts.begin(), counts.end(), std::size_t{1});
    counts[33] = 64;
    counts[34] = 150;
    check<TestType>(q, make_inputs(150, 160, random), counts, usable_isas());
}

TEMPLATE_TEST_CASE("tiles of every height, whole blocks and what is left of them, panels full or not", "",
                   gptq::activation::exact, gptq::activation::int16, gptq::activation::int8) {
    std::mt19937 random(18);
    // One short of, as many as, and one more than: a small tile, a large one, two, a block, a block and a large tile.
    constexpr std::array<std::size_t, 18> counts = {3,  4,  5,  11, 12, 13, 15,  16,  17,
                                                    23, 24, 25, 95, 96, 97, 108, 112, 124};
    for (const int bits : {2, 3, 4, 8})
        for (const std::size_t N : {1u, 17u, 32u, 33u, 80u}) {
            const auto q = make_layer({bits, false, N, 72, 40, false}, random);
            check<TestType>(q, make_inputs(124, 72, random), counts, usable_isas());
        }
    SUCCEED();
}

TEMPLATE_TEST_CASE("blocks of rows that the cache bounds", "", gptq::activation::exact, gptq::activation::int16,
                   gptq::activation::int8) {
    std::mt19937 random(19);
    const auto q = make_layer({4, false, cached_features, 20000, 128, false}, random);
    check<TestType>(q, make_inputs(cached_rows.back(), 20000, random), cached_rows, usable_isas());
    SUCCEED();
}

TEMPLATE_TEST_CASE("one row, asymmetric", "", gptq::activation::exact, gptq::activation::int16,
                   gptq::activation::int8) {
    std::mt19937 random(9);
    constexpr std::array<std::size_t, 1> one = {1};
    for (const int bits : {2, 3, 4, 8}) {
        const auto q = make_layer({bits, false, 48, 1024, 128, false}, random);
        check<TestType>(q, make_inputs(1, 1024, random), one, usable_isas());
    }
}

TEMPLATE_TEST_CASE("the largest codes and inputs do not overflow", "", gptq::activation::int16,
                   gptq::activation::int8) {
    std::mt19937 random(10);
    constexpr std::array<std::size_t, 2> counts = {1, 4};
    for (const int bits : {2, 3, 4, 8})
        for (const float sign : {-1.0f, 1.0f}) {
            auto q = make_layer({bits, false, 16, 4096, 4096, false}, random);
            std::fill(q.codes.begin(), q.codes.end(), static_cast<std::uint8_t>((1 << bits) - 1));
            q.zeros.fill(0);
            gptq::matrix<float> X(4, 4096);
            std::fill_n(X.data(), 4 * 4096, sign * 3.0f);
            check<TestType>(q, X, counts, usable_isas());
        }
}

TEMPLATE_TEST_CASE("inputs that are not finite make outputs that are not, and those of their row only", "",
                   gptq::activation::exact, gptq::activation::int16, gptq::activation::int8) {
    std::mt19937 random(11);
    auto q = make_layer({4, false, 20, 96, 32, false}, random);
    const bool levels = GENERATE(false, true);
    if (levels) add_levels(q, kind::any, random);
    const auto m = gptq::prepare<TestType>(q);
    for (const float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()})
        for (const isa which : usable_isas()) {
            auto X = make_inputs(3, 96, random);
            X(1, 40) = bad;
            const auto Y = gptq::matmul(X.view(), m, {.instructions = which});
            for (std::size_t n = 0; n < 20; ++n) {
                CHECK(std::isfinite(Y(0, n)));
                CHECK(!std::isfinite(Y(1, n)));
                CHECK(std::isfinite(Y(2, n)));
            }
        }
}

TEST_CASE("zeros, and numbers too small to have a scale, give zeros") {
    std::mt19937 random(12);
    const auto m = gptq::prepare<gptq::activation::int8>(make_layer({4, false, 20, 96, 32, false}, random));
    gptq::matrix<float> X(2, 96);
    std::fill_n(X.view().row(1).data(), 96, 1e-40f);
    for (const isa which : usable_isas())
        CHECK(same(gptq::matmul(X.view(), m, {.instructions = which}), gptq::tensor2<float>({2, 20}, 0.0f)));
}

TEST_CASE("the number of threads does not change the result") {
    std::mt19937 random(13);
    const auto m = gptq::prepare<gptq::activation::int16>(make_layer({4, false, 300, 512, 128, true}, random));
    for (const std::size_t rows : {1u, 5u, 130u}) {
        const auto X = make_inputs(rows, 512, random);
        const auto one = gptq::matmul(X.view(), m, {.threads = 1});
        for (const std::size_t threads : {0u, 2u, 3u, 7u})
            CHECK(same(gptq::matmul(X.view(), m, {.threads = threads}), one));
    }
}

TEST_CASE("pieces are done once each, by any number of threads") {
    for (const std::size_t count : {0u, 1u, 2u, 7u, 100u, 1000u})
        for (const std::size_t threads : {1u, 2u, 3u, 8u}) {
            std::vector<std::atomic<int>> done(count);
            gptq::kernels::in_pieces(count, threads, [&](std::size_t first, std::size_t last) {
                for (std::size_t i = first; i < last; ++i) ++done[i];
            });
            CHECK(std::all_of(done.begin(), done.end(), [](const auto& times) { return times == 1; }));
        }
    const auto refuse = [](std::size_t, std::size_t) { throw gptq::cancelled("enough"); };
    CHECK_THROWS_AS(gptq::kernels::in_pieces(10, 2, refuse), gptq::cancelled);
}

TEMPLATE_TEST_CASE("products side by side are those that come one after the other", "", gptq::activation::exact,
                   gptq::activation::int16, gptq::activation::int8) {
    std::mt19937 random(21);
    // The first two can share their inputs; the third has shorter groups, the fourth another order. What the fifth would
    // share depends on the instruction set: 8 bits want a single row in another form.
    const std::array layers = {gptq::prepare<TestType>(make_layer({4, false, 100, 256, 64, false}, random)),
                               gptq::prepare<TestType>(make_layer({3, true, 40, 256, 64, false}, random)),
                               gptq::prepare<TestType>(make_layer({4, false, 70, 256, 32, false}, random)),
                               gptq::prepare<TestType>(make_layer({4, false, 33, 256, 64, true}, random)),
                               gptq::prepare<TestType>(make_layer({8, false, 65, 256, 64, false}, random))};
    for (const isa which : usable_isas())
        for (const std::size_t rows : {1u, 2u, 50u}) {
            const auto X = make_inputs(rows, 256, random);
            std::vector<gptq::tensor2<float>> outputs;
            std::vector<gptq::begun_product<float>> products;
            for (const auto& layer : layers) {
                outputs.push_back(gptq::make_tensor2<float>(rows, layer.out_features()));
                products.push_back(layer.begin(X.view(), gptq::view_of(outputs.back()), {.instructions = which}, {},
                                               products.empty() ? nullptr : &products.back()));
            }
            // int8 with 3 bits: not every instruction set holds inputs alike for 3 and 4 bits.
            if (TestType::levels != 127) CHECK(products[0].inputs() == products[1].inputs());
            CHECK(products[1].inputs() != products[2].inputs());
            CHECK(products[2].inputs() != products[3].inputs());
            gptq::kernels::run_jobs(products, 3);
            for (std::size_t i = 0; i < layers.size(); ++i)
                CHECK(same(outputs[i], gptq::matmul(X.view(), layers[i], {.instructions = which})));
        }
}

TEMPLATE_TEST_CASE("a row alone gives what it gives among others, to the bit, where inputs are integers", "",
                   gptq::activation::int16, gptq::activation::int8) {
    std::mt19937 random(23);
    for (const int bits : {2, 3, 4, 8}) {
        const auto layer = gptq::prepare<TestType>(make_layer({bits, false, 70, 300, 128, bits == 3}, random));
        auto X = make_inputs(5, 300, random);
        X(0, 7) = 0x1p20f;  // all others are small beside it, but for their own segments
        for (const isa which : usable_isas()) {
            CAPTURE(bits, gptq::isa_name(which));
            const auto together = gptq::matmul(X.view(), layer, {.instructions = which});
            for (std::size_t r = 0; r < 5; ++r) {
                const auto alone = gptq::matmul(X.view().block(r, 1, 0, 300), layer, {.instructions = which});
                CHECK(std::equal(alone.begin(), alone.end(), &together(r, 0)));
            }
        }
    }
}

TEST_CASE("layers in one memory, which may end before them") {
    std::mt19937 random(22);
    const auto q = make_layer({4, false, 50, 96, 32, false}, random);
    const auto X = make_inputs(3, 96, random);
    const auto expected = gptq::matmul(X.view(), gptq::prepare<gptq::activation::exact>(q));
    std::vector<gptq::prepared<gptq::activation::exact>> layers;
    {
        gptq::weight_memory memory(std::size_t{1} << 14);  // some of the layers fill it
        for (int i = 0; i < 9; ++i) layers.push_back(gptq::prepare<gptq::activation::exact>(q, &memory));
        const auto numbers = memory.zeros<std::uint64_t>(10000);
        CHECK(reinterpret_cast<std::uintptr_t>(numbers.get()) % 64 == 0);
        CHECK(std::all_of(numbers.get(), numbers.get() + 10000, [](std::uint64_t x) { return x == 0; }));
    }
    for (const auto& layer : layers) CHECK(same(gptq::matmul(X.view(), layer), expected));
}

TEST_CASE("what a layer takes in memory") {
    std::mt19937 random(23);
    constexpr std::size_t codes = 64 * 128 / 2, scales = 64 * 2;
    auto q = make_layer({4, false, 64, 128, 64, false}, random);
    CHECK(gptq::prepare<gptq::activation::exact>(q).bytes() == codes + 4 * scales + scales);
    round_scales(q, random);
    CHECK(gptq::prepare<gptq::activation::exact>(q).bytes() == codes + 2 * scales + scales);
    q.zeros.fill(8);
    CHECK(gptq::prepare<gptq::activation::exact>(q).bytes() == codes + 2 * scales + 64);
}

TEST_CASE("an epilogue gets each output once, with its row and output feature") {
    std::mt19937 random(14);
    const auto m = gptq::prepare<gptq::activation::exact>(make_layer({4, false, 35, 64, 32, false}, random));
    const auto X = make_inputs(70, 64, random);
    const auto plain = gptq::matmul(X.view(), m);
    const auto marked = gptq::matmul(X.view(), m, {}, [](float y, std::size_t row, std::size_t n) {
        return 2.0f * y + static_cast<float>(100 * row + n);
    });
    std::vector<float> bias(35);
    std::iota(bias.begin(), bias.end(), 0.5f);
    const auto biased = gptq::matmul(X.view(), m, {}, gptq::add_bias{bias});
    for (std::size_t t = 0; t < 70; ++t)
        for (std::size_t n = 0; n < 35; ++n) {
            CHECK(marked(t, n) == 2.0f * plain(t, n) + static_cast<float>(100 * t + n));
            CHECK(biased(t, n) == plain(t, n) + bias[n]);
        }
    const auto refuse = [](float, std::size_t, std::size_t) -> float { throw gptq::cancelled("enough"); };
    CHECK_THROWS_AS(gptq::matmul(X.view(), m, {}, refuse), gptq::cancelled);
}

TEMPLATE_TEST_CASE("inputs and outputs of 16 bits", "", gptq::half, gptq::bfloat16) {
    std::mt19937 random(15);
    const auto m = gptq::prepare<gptq::activation::exact>(make_layer({4, false, 35, 80, 32, true}, random));
    const auto narrow = [](float x) {
        if constexpr (std::is_same_v<TestType, gptq::half>)
            return gptq::to_half(x);
        else
            return gptq::to_bfloat16(x);
    };
    auto X = make_inputs(3, 80, random);
    gptq::matrix<TestType> narrow_X(3, 80), narrow_Y(3, 35);
    for (std::size_t i = 0; i < 3 * 80; ++i) {
        narrow_X.data()[i] = narrow(X.data()[i]);
        X.data()[i] = gptq::to_float(narrow_X.data()[i]);
    }
    m.multiply(narrow_X.view(), narrow_Y.view());
    const auto Y = gptq::matmul(X.view(), m);
    for (std::size_t i = 0; i < 3 * 35; ++i) CHECK(narrow_Y.data()[i] == narrow(Y.data()[i]));
}

TEMPLATE_TEST_CASE("preparing the tensors of a checkpoint is preparing the layer", "", gptq::layout::gptq_v1,
                   gptq::layout::gptq_v2, gptq::layout::compressed_tensors) {
    std::mt19937 random(16);
    for (const int bits : {2, 3, 4, 8}) {
        if (!TestType::supports(bits)) continue;
        for (const bool shuffled : {false, true}) {
            auto q = make_layer({bits, false, 96, 64, 32, shuffled}, random);
            for (auto& s : q.scales) s = gptq::round_to_half(s);
            for (auto& z : q.zeros) z = std::max<std::uint8_t>(z, TestType::min_zero);
            const auto X = make_inputs(3, 64, random);
            const auto Y = gptq::matmul(X.view(), gptq::prepare<gptq::activation::exact>(q));
            const auto t = gptq::pack<TestType>(q);
            CHECK(same(gptq::matmul(X.view(), gptq::prepare<gptq::activation::exact>(t)), Y));
        }
    }
}

TEST_CASE("sums of weighed rows, on every instruction set") {
    using namespace gptq::kernels;
    constexpr std::size_t columns = 5 * weigh_lanes + 3, count = 37;  // wide parts, narrow ones, and what is left alone
    std::mt19937 random(3);
    std::normal_distribution<float> normal;
    gptq::matrix<float> weights(weigh_together, count + 2), rows(count, columns + 4);
    for (std::size_t i = 0; i < weights.rows() * weights.cols(); ++i) weights.data()[i] = normal(random);
    for (std::size_t i = 0; i < rows.rows() * rows.cols(); ++i) rows.data()[i] = normal(random);
    for (const isa which : usable_isas()) {
        INFO(gptq::isa_name(which));
        const weigh_kernels kernels = find_weigh_kernels(which);
        for (const std::size_t n : {std::size_t{1}, weigh_together}) {
            gptq::matrix<float> sums(weigh_together, columns);
            (n == 1 ? kernels.one : kernels.together)({weights.data(), weights.cols(), rows.data(), rows.cols(),
                                                       sums.data(), sums.cols(), count, 5 * weigh_lanes});
            double worst = 0.0;
            for (std::size_t s = 0; s < weigh_together; ++s)
                for (std::size_t c = 0; c < columns; ++c) {
                    double expected = 0.0;
                    if (s < n && c < 5 * weigh_lanes)
                        for (std::size_t i = 0; i < count; ++i) expected += double{weights(s, i)} * double{rows(i, c)};
                    worst = std::max(worst, std::abs(expected - double{sums(s, c)}));
                }
            CHECK(worst < 1e-5);
        }
    }
}

TEST_CASE("a tile of the solver's columns, on every instruction set") {
    constexpr std::size_t lanes = gptq::kernels::tile_lanes, columns = 37, first = 3, last = 29;
    for (const isa which : usable_isas())
        for (const int bits : {2, 3, 4, 8}) {
            INFO(gptq::isa_name(which) << ", " << bits << " bits");
            std::mt19937 random(static_cast<unsigned>(bits));
            std::normal_distribution<float> normal;
            const float max_code = static_cast<float>((1 << bits) - 1);
            std::vector<float> weights(columns * lanes), values(columns * lanes), U(columns * columns),
                losses(lanes, 1.0f);
            std::vector<float> scales(lanes), zeros(lanes);
            std::vector<std::uint32_t> codes(columns * lanes);
            for (float& w : weights) w = normal(random);
            for (float& u : U) u = 0.3f * normal(random);
            for (std::size_t i = 0; i < columns; ++i) U[i * columns + i] = 1.0f + std::fabs(normal(random));
            for (std::size_t lane = 0; lane < lanes; ++lane) {
                scales[lane] = (lane % 4 == 3 ? -1.0f : 1.0f) * (0.5f + 0.1f * static_cast<float>(lane)) / max_code;
                zeros[lane] = static_cast<float>(random() % static_cast<unsigned>(1 << bits));
            }
            weights[first * lanes + 5] = std::numeric_limits<float>::quiet_NaN();  // counts as the lowest code
            std::vector<double> expected(weights.begin(), weights.end());
            gptq::kernels::find_column_kernels(which).quantize({weights.data(), values.data(), codes.data(),
                                                                losses.data(), U.data(), columns, first, last, columns,
                                                                scales.data(), zeros.data(), max_code});
            for (std::size_t lane = 0; lane < lanes; ++lane) {
                double loss = 1.0;
                for (std::size_t i = first; i < last; ++i) {
                    const double w = expected[i * lanes + lane], scale = scales[lane], zero = zeros[lane];
                    const std::uint32_t code = codes[i * lanes + lane];
                    if (lane == 5) {
                        REQUIRE((i > first || code == 0));
                        continue;
                    }
                    // Its own code goes on: where two are equally near, either will do.
                    REQUIRE(code <= static_cast<std::uint32_t>(max_code));
                    const double steps = std::clamp(w / scale, -zero, double{max_code} - zero);
                    REQUIRE(std::fabs(static_cast<double>(code) - zero - steps) < 0.5 + 2e-4);
                    const double value = scale * (static_cast<double>(code) - zero);
                    const double error = (w - value) / double{U[i * columns + i]};
                    REQUIRE(values[i * lanes + lane] == Approx(value).margin(1e-5));
                    REQUIRE(weights[i * lanes + lane] == Approx(error).epsilon(1e-4).margin(1e-4));
                    for (std::size_t j = i + 1; j < columns; ++j)
                        expected[j * lanes + lane] -= error * double{U[i * columns + j]};
                    loss += error * error;
                }
                if (lane == 5) continue;
                CHECK(losses[lane] == Approx(loss).epsilon(1e-4));
                for (std::size_t i = last; i < columns; ++i)
                    REQUIRE(weights[i * lanes + lane] == Approx(expected[i * lanes + lane]).epsilon(1e-4).margin(1e-3));
            }
        }
}

TEST_CASE("the loss of a group, on every instruction set") {
    std::mt19937 random(5);
    std::normal_distribution<float> normal;
    std::vector<float> w(48), costs(48);
    for (float& x : w) x = normal(random);
    for (float& c : costs) c = std::fabs(normal(random));
    for (const isa which : usable_isas())
        for (const auto& [scale, zero] : {std::pair{0.31f, 0.0f}, {0.31f, 3.0f}, {0.31f, 7.0f}, {-0.31f, 4.0f}}) {
            constexpr float max_code = 7.0f;
            double loss = 0.0;
            for (std::size_t k = 0; k < w.size(); ++k) {
                const double steps =
                    std::nearbyint(std::clamp(double{w[k]} / double{scale}, -double{zero}, 7.0 - double{zero}));
                const double error = double{w[k]} - double{scale} * steps;
                loss += double{costs[k]} * error * error;
            }
            INFO(gptq::isa_name(which) << ", scale " << scale << ", zero " << zero);
            CHECK(gptq::kernels::find_column_kernels(which).loss({w.data(), costs.data(), w.size()}, scale, zero,
                                                                 max_code) == Approx(loss).epsilon(1e-5));
        }
}

TEST_CASE("instruction sets that the machine has not, and bits that nobody has") {
    std::mt19937 random(17);
    auto q = make_layer({4, true, 2, 8, 4, false}, random);
    const auto m = gptq::prepare<gptq::activation::exact>(q);
    const auto X = make_inputs(3, 8, random);
    for (const isa which : gptq::all_isas)
        if (!gptq::supports(which))
            CHECK_THROWS_AS(gptq::matmul(X.view(), m, {.instructions = which}), gptq::unsupported_error);
    for (const int bits : {1, 9}) {
        q.bits = bits;
        CHECK_THROWS_AS(gptq::prepare<gptq::activation::exact>(q), gptq::unsupported_error);
    }
}

TEST_CASE("GPTQ_ISA forces an instruction set, or says what it could have been") {
    using gptq::detail::choose_isa;
    for (const isa which : usable_isas()) CHECK(choose_isa(std::string(gptq::isa_name(which)).c_str()) == which);
    CHECK(choose_isa(nullptr) == choose_isa(""));
    CHECK(gptq::supports(choose_isa(nullptr)));
    CHECK_THROWS_WITH(choose_isa("sse9"), Catch::Contains("sse9") && Catch::Contains("portable"));
}

#if defined(__x86_64__)
TEST_CASE("without a compiler flag, the best kernels that the processor has are taken") {
    // The kernel's list of what the processor has is independent of our cpuid; it leaves out what it does not save.
    std::ifstream file("/proc/cpuinfo");
    std::string line;
    while (std::getline(file, line) && line.rfind("flags", 0) != 0) {
    }
    if (line.empty()) {
        WARN("skipped: there is no /proc/cpuinfo with flags");
        return;
    }
    const auto has = [&](const std::string& flag) { return (line + " ").find(" " + flag + " ") != std::string::npos; };
    const bool avx2 = has("avx2") && has("fma");
    const bool avx512 = avx2 && has("avx512f") && has("avx512bw") && has("avx512dq") && has("avx512vl");
    CHECK(gptq::supports(isa::avx2) == avx2);
    CHECK(gptq::supports(isa::avx_vnni) == (avx2 && has("avx_vnni")));
    CHECK(gptq::supports(isa::avx512) == avx512);
    CHECK(gptq::supports(isa::avx512_vnni) == (avx512 && has("avx512_vnni")));

    const isa best = gptq::detail::choose_isa(nullptr);
    CHECK(best == usable_isas().back());
    namespace kernels = gptq::kernels;
    using kernels::held_as;
    const auto taken = kernels::find_kernel<held_as::int8, 4, kernels::levels_as::codes>(best).multiply;
    if (best == isa::avx512_vnni)
        CHECK(taken == kernels::avx512_vnni::make_kernel<held_as::int8, 4, kernels::levels_as::codes>().multiply);
    if (best == isa::avx512)
        CHECK(taken == kernels::avx512::make_kernel<held_as::int8, 4, kernels::levels_as::codes>().multiply);
    if (best == isa::avx2)
        CHECK(taken == kernels::avx2::make_kernel<held_as::int8, 4, kernels::levels_as::codes>().multiply);
}
#endif
