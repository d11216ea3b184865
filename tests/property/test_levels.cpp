// What every public function makes of a layer, whatever its grid, is what plain loops in double make of the grid's own
// decode.
#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <gptq/gptq.hpp>
#include <gptq/io/quantized_tensors.hpp>
#include <gptq/reference_backend.hpp>
#include <gptq/reference_matmul.hpp>

#include "support/catch.hpp"
#include "support/message.hpp"
#include "support/random_layer.hpp"
#include "support/schemes.hpp"
#include "support/temp_dir.hpp"

namespace {

constexpr std::size_t N = 32, K = 96, T = 200, group = 32;

/// Eight levels of a user's own.
struct own_table {
    static constexpr std::array<float, 8> values = {-1.0f, -0.55f, -0.25f, 0.0f, 0.2f, 0.45f, 0.7f, 1.0f};
};
/// Evenly spaced levels of which none is 0: an offset that is no whole number.
struct offset_table {
    static constexpr std::array<float, 16> values = [] {
        std::array<float, 16> levels{};
        for (std::size_t c = 0; c < 16; ++c) levels[c] = static_cast<float>(c) - 7.3f;
        return levels;
    }();
};
/// More levels than registers hold.
struct large_table {
    static constexpr std::array<float, 64> values = [] {
        std::array<float, 64> levels{};
        for (int c = 0; c < 64; ++c) {
            const auto x = static_cast<float>(c - 31);
            levels[static_cast<std::size_t>(c)] = x * (1.0f + (x < 0.0f ? -x : x) / 40.0f);
        }
        return levels;
    }();
};

/// asymmetric, which does not say that it is affine but gives its levels.
struct affine_unsaid {
    static constexpr bool sym = false;
    template <int Bits>
    static gptq::grid_params fit(std::span<const float> w) {
        return gptq::asymmetric::fit<Bits>(w);
    }
    template <int Bits>
    static std::uint8_t encode(float x, gptq::grid_params p) {
        return gptq::asymmetric::encode<Bits>(x, p);
    }
    template <int Bits>
    static float decode(std::uint8_t code, gptq::grid_params p) {
        return gptq::asymmetric::decode<Bits>(code, p);
    }
    template <int Bits>
    static std::array<float, std::size_t{1} << Bits> levels() {
        std::array<float, std::size_t{1} << Bits> own{};
        for (std::size_t c = 0; c < own.size(); ++c) own[c] = static_cast<float>(c);
        return own;
    }
};

struct setting {
    gptq_test::random_layer data = gptq_test::make_layer(N, K, T, 5);
    gptq::hessian<float> h{K};
    gptq::basic_hessian<gptq::reference_backend> plain_h{K};
    setting() {
        h.add(data.X.view());
        plain_h.add(data.X.view());
    }
    gptq::matrix_view<const float> W() const { return std::as_const(data.W).view(); }
    gptq::matrix_view<const float> X() const { return std::as_const(data.X).view(); }
};

const setting& shared() {
    static const setting s;
    return s;
}

/// The weights by the grid itself.                                                                             [N, K]
template <class S>
gptq::matrix<double> values_of(const gptq::quantized<S>& q) {
    const typename S::grid grid;
    gptq::matrix<double> V(N, K);
    for (std::size_t n = 0; n < N; ++n)
        for (std::size_t k = 0; k < K; ++k) {
            const auto g = static_cast<std::size_t>(q.g_idx(k));
            V(n, k) = grid.template decode<S::bits>(q.codes(n, k), {q.scales(n, g), q.zeros(n, g)});
        }
    return V;
}

double largest_difference(const gptq::matrix<double>& V, gptq::matrix_view<const float> W) {
    double largest = 0.0;
    for (std::size_t n = 0; n < N; ++n)
        for (std::size_t k = 0; k < K; ++k) largest = std::max(largest, std::fabs(V(n, k) - double{W(n, k)}));
    return largest;
}

/// tr(D H D') in double.
double error_of(const gptq::matrix<double>& V) {
    const setting& s = shared();
    double total = 0.0;
    for (std::size_t n = 0; n < N; ++n)
        for (std::size_t i = 0; i < K; ++i)
            for (std::size_t j = 0; j < K; ++j) {
                const double H = s.h.upper()(std::min(i, j), std::max(i, j));
                total += (double{s.data.W(n, i)} - V(n, i)) * H * (double{s.data.W(n, j)} - V(n, j));
            }
    return total;
}

/// X as A holds it, groups of `group` neighbours.                                                              [T, K]
template <gptq::Activation A>
gptq::matrix<float> held(std::size_t rows) {
    gptq::matrix<float> X(rows, K);
    for (std::size_t t = 0; t < rows; ++t)
        for (std::size_t k = 0; k < K; ++k) {
            const auto x = shared().X().row(t);
            float largest = 0.0f;
            for (std::size_t j = k / group * group; j < std::min((k / group + 1) * group, K); ++j)
                largest = std::max(largest, std::fabs(x[j]));
            constexpr auto levels = static_cast<float>(A::levels);
            X(t, k) = A::levels == 0 ? x[k] : std::nearbyint(x[k] * (levels / largest)) * (largest / levels);
        }
    return X;
}

/// The largest error of Y = X V' in units of the sum of the terms' magnitudes.
double product_error(const gptq::matrix<float>& X, const gptq::matrix<double>& V, gptq::matrix_view<const float> Y) {
    double worst = 0.0;
    for (std::size_t t = 0; t < Y.rows; ++t)
        for (std::size_t n = 0; n < N; ++n) {
            double sum = 0.0, magnitude = 1e-30;
            for (std::size_t k = 0; k < K; ++k) {
                sum += double{X(t, k)} * V(n, k);
                magnitude += std::fabs(double{X(t, k)} * V(n, k));
            }
            worst = std::max(worst, std::fabs(double{Y(t, n)} - sum) / magnitude);
        }
    return worst;
}

template <gptq::Activation A, class S>
void check_products(const gptq::quantized<S>& q) {
    const auto V = values_of(q);
    const gptq::quantized_layer& layer = q;
    // Sums begin with -zero * (sum of the inputs), which costs digits where zero points are large beside the weights.
    constexpr double slack = 3e-5;
    for (const std::size_t rows : {1u, 3u, 17u}) {
        const auto X = held<A>(rows);
        const auto inputs = shared().X().block(0, rows, 0, K);
        gptq::matrix<double> plain(rows, N);
        gptq::reference_matmul<A>(layer.view(), inputs, plain.view());
        gptq::matrix<float> narrow(rows, N);
        std::copy_n(plain.data(), rows * N, narrow.data());
        CHECK(product_error(X, V, narrow.view()) < slack);
        for (const gptq::isa which : gptq::all_isas) {
            if (!gptq::supports(which)) continue;
            CAPTURE(rows, gptq::isa_name(which), A::levels);
            const gptq::matmul_options options{.instructions = which};
            CHECK(product_error(X, V, gptq::view_of(gptq::matmul(inputs, gptq::prepare<A>(q), options))) < slack);
            CHECK(product_error(X, V, gptq::view_of(gptq::matmul(inputs, gptq::prepare<A>(layer), options))) < slack);
        }
    }
}

/// Layouts and files give the layer back, or say what they cannot hold.
template <class L>
void check_layout(const gptq::quantized_layer& layer, const gptq::matrix<double>& V) {
    if (!L::supports(layer.bits)) return;
    if (layer.levels.empty())
        CHECK(largest_difference(V, gptq::view_of(gptq::dequantize(gptq::unpack<L>(gptq::pack<L>(layer))))) < 1e-6);
    else
        CHECK_THROWS_AS(gptq::pack<L>(layer), gptq::unsupported_error);
}

void check_file(const gptq::quantized_layer& layer) {
    const gptq_test::temp_dir dir;
    gptq::io::folder_writer writer(dir.path() / "out");
    const std::string message = gptq_test::message_of([&] {
        gptq::io::write_quantized(writer.sink(), gptq::io::checkpoint_format::gptq_v2, "layers.0.q_proj", layer);
    });
    if (layer.levels.empty() && gptq::layout::gptq_v2::supports(layer.bits))
        CHECK(message == "nothing was thrown");
    else
        CHECK(gptq_test::mentions(message, "layers.0.q_proj"));
}

template <class S>
gptq::held_layer<gptq::cpu_backend> solve_held(const gptq::quantize_options& options) {
    const setting& s = shared();
    const auto f = gptq::factorize<S>(s.h, options);
    gptq::held_layer<gptq::cpu_backend> codes(gptq::cpu_backend{}, N, K, K / group);
    gptq::no_observer observer;
    gptq::solve_and_refine<S::bits>(gptq::in_backend, s.W(), f, codes, options, observer, typename S::grid{});
    return codes;
}

template <class S>
void check_layer(const gptq::quantized<S>& q) {
    const setting& s = shared();
    const auto V = values_of(q);
    const gptq::quantized_layer& layer = q;
    CHECK(largest_difference(V, gptq::view_of(gptq::dequantize(q))) == 0.0);
    CHECK(largest_difference(V, gptq::view_of(gptq::dequantize(layer))) < 1e-6);
    const double expected = error_of(V);
    CHECK(gptq::layer_error(s.W(), q, s.h) == Approx(expected).epsilon(1e-3));
    CHECK(gptq::layer_error(s.W(), layer, s.h) == Approx(expected).epsilon(1e-3));
    check_products<gptq::activation::exact>(q);
    check_products<gptq::activation::int16>(q);
    check_products<gptq::activation::int8>(q);
    check_layout<gptq::layout::gptq_v2>(layer, V);
    check_layout<gptq::layout::compressed_tensors>(layer, V);
    check_file(layer);
}

template <int Bits, class Grid>
using scheme_of = gptq::scheme<Bits, gptq::group_size<group>, Grid>;

template <int Bits, class Grid>
void check_grid() {
    using S = scheme_of<Bits, Grid>;
    const setting& s = shared();
    check_layer(gptq::round_to_nearest<S>(s.W()));
    check_layer(gptq::quantize<S>(s.W(), s.h));
    for (const bool scales : {true, false}) {
        gptq::quantize_options options{.candidates = scales ? std::size_t{4} : std::size_t{1}};
        const auto before = gptq::quantize<S>(s.W(), s.h, options);
        options.refine = {.rounds = 2, .scales = scales, .codes = !scales};
        const auto q = gptq::quantize<S>(s.W(), s.h, options);
        const double damp = q.report.damp_percent * gptq_test::mean_diagonal(s.h);
        const auto loss = [&](const auto& of) {
            return gptq_test::damped_error(s.W(), gptq::dequantize(of), s.h, damp);
        };
        CHECK(q.report.loss == Approx(loss(q)).epsilon(2e-3));
        CHECK(loss(q) <= loss(before) * (1.0 + 1e-4));
        // Where scales are powers of two, a better one is rarely near.
        if constexpr (gptq::RefittableGrid<Grid, Bits>)
            if (scales && Grid::storable(1.1f) != 1.0f) CHECK(loss(q) < loss(before));
        // The same in the backend's memory, where the layer knows its levels, too.
        auto codes = solve_held<S>(options);
        gptq::matrix<float> W(N, K);
        codes.dequantize(W.view());
        CHECK(largest_difference(values_of(q), W.view()) < 1e-6);
    }
}

}  // namespace

TEST_CASE("affine layers are what their grid says") {
    check_grid<4, gptq::symmetric>();
    check_grid<3, gptq::asymmetric>();
}

TEST_CASE("an affine grid that does not say so makes affine layers all the same") {
    check_grid<4, affine_unsaid>();
    CHECK(gptq::round_to_nearest<scheme_of<4, affine_unsaid>>(shared().W()).levels.empty());
}

TEST_CASE("layers of NF4 are what their grid says") { check_grid<4, gptq::nf4>(); }
TEST_CASE("layers of FP4 are what their grid says") { check_grid<4, gptq::fp4>(); }
TEST_CASE("layers of FP4 with scales of few bits are what their grid says") {
    check_grid<4, gptq::mxfp4>();
    check_grid<4, gptq::nvfp4>();
}
TEST_CASE("layers of FP8 are what their grid says") { check_grid<8, gptq::fp8_e4m3>(); }
TEST_CASE("layers of a user's codebook are what their grid says") {
    check_grid<3, gptq::codebook<own_table>>();
    check_grid<4, gptq::codebook<offset_table>>();
    check_grid<6, gptq::codebook<large_table>>();
}

TEST_CASE("a search by loss finds the same on every backend, whatever the grid") {
    const setting& s = shared();
    const auto check = [&]<int Bits, class Grid>() {
        using S = scheme_of<Bits, gptq::searched_by_loss<Grid>>;
        const double plain =
            gptq::layer_error(s.W(), gptq::quantize<S>(s.W(), s.plain_h, {}, gptq::reference_backend{}), s.h);
        CHECK(gptq::layer_error(s.W(), gptq::quantize<S>(s.W(), s.h), s.h) == Approx(plain).epsilon(0.03));
        const gptq::quantize_options options{.candidates = 4};
        CHECK(gptq::layer_error(s.W(), gptq::quantize<S>(s.W(), s.h, options), s.h) < 1.1 * plain);
        using static_S =
            gptq::scheme<Bits, gptq::group_size<group>, gptq::searched_by_loss<Grid>, gptq::act_order_static>;
        CHECK(gptq::layer_error(s.W(), gptq::quantize<static_S>(s.W(), s.h), s.h) < 1.5 * plain);
    };
    check.template operator()<4, gptq::symmetric>();
    check.template operator()<4, gptq::nf4>();
    check.template operator()<4, gptq::fp4>();
    check.template operator()<3, gptq::codebook<own_table>>();
}

TEST_CASE("NF4 beats evenly spaced levels on normal weights, searched or not") {
    const setting& s = shared();
    const auto error = [&]<class Grid>() {
        return gptq::layer_error(s.W(), gptq::quantize<scheme_of<4, Grid>>(s.W(), s.h), s.h);
    };
    CHECK(error.template operator()<gptq::nf4>() < error.template operator()<gptq::symmetric>());
    CHECK(error.template operator()<gptq::searched_by_loss<gptq::nf4>>() <
          error.template operator()<gptq::searched_by_loss<gptq::symmetric>>());
}

namespace {

/// The x below which a standard normal number lies with this probability.
double normal_quantile(double probability) {
    double low = -10.0, high = 10.0;
    for (int i = 0; i < 200; ++i) {
        const double x = 0.5 * (low + high);
        (0.5 * std::erfc(-x / std::sqrt(2.0)) < probability ? low : high) = x;
    }
    return low;
}

}  // namespace

TEST_CASE("the levels of NF4 are the quantiles of a normal distribution that QLoRA takes") {
    // Eight levels above 0 and seven below it, at even distances of probability up to this one, divided by the largest.
    constexpr double outermost = 0.9677083;
    const double largest = normal_quantile(outermost);
    std::vector<double> expected = {0.0};
    for (const int count : {8, 7})
        for (int i = 0; i < count; ++i) {
            const double probability = outermost + (0.5 - outermost) * i / count;
            expected.push_back((count == 8 ? 1.0 : -1.0) * normal_quantile(probability) / largest);
        }
    std::sort(expected.begin(), expected.end());
    for (std::size_t c = 0; c < 16; ++c) CHECK(double{gptq::nf4_table::values[c]} == Approx(expected[c]).margin(2e-6));
}

TEST_CASE("the levels of FP4 are the numbers of two bits of exponent and one of mantissa") {
    std::vector<float> expected = {6.0f};  // in place of the second 0
    for (int bits = 0; bits < 16; ++bits) {
        const int exponent = bits >> 1 & 3, mantissa = bits & 1;
        const double magnitude = exponent == 0 ? 0.5 * mantissa : std::ldexp(1.0 + 0.5 * mantissa, exponent - 1);
        if (bits != 8) expected.push_back(static_cast<float>(bits < 8 ? magnitude : -magnitude));
    }
    std::sort(expected.begin(), expected.end());
    CHECK(std::equal(expected.begin(), expected.end(), gptq::fp4_table::values.begin()));
}

TEST_CASE("the levels of FP8 are the numbers of four bits of exponent and three of mantissa") {
    std::vector<float> expected(3, 448.0f);  // in place of the second 0 and two NaN
    for (int bits = 0; bits < 256; ++bits) {
        const int exponent = bits >> 3 & 15, mantissa = bits & 7;
        const double magnitude = exponent == 0 ? std::ldexp(mantissa, -9) : std::ldexp(8.0 + mantissa, exponent - 10);
        if (bits != 128 && (bits & 127) != 127)
            expected.push_back(static_cast<float>(bits < 128 ? magnitude : -magnitude));
    }
    std::sort(expected.begin(), expected.end());
    CHECK(std::equal(expected.begin(), expected.end(), gptq::fp8_e4m3_table::values.begin()));
}

TEST_CASE("scales of few bits are the nearest that there are") {
    for (const float scale : {0.0007f, -0.03f, 0.75f, 1.5f, 3.0f, 11.0f})
        for (const float step : {0.9f, 1.0f, 1.1f, 1.37f}) {
            const float x = scale * step, power = gptq::mxfp4::storable(x), number = gptq::nvfp4::storable(x);
            CAPTURE(x);
            int exponent = 0;
            CHECK(std::fabs(std::frexp(power, &exponent)) == 0.5f);
            for (const float other : {0.5f * power, 2.0f * power}) CHECK(std::fabs(x - power) <= std::fabs(x - other));
            for (const float level : gptq::fp8_e4m3_table::values)
                CHECK(std::fabs(x - number) <= std::fabs(x - level * gptq::fp8_scale::unit));
        }
    CHECK(gptq::nvfp4::storable(0.0f) == 0x1p-16f);
    CHECK(gptq::mxfp4::storable(0.0f) == 0x1p-24f);
}
