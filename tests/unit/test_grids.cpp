// The grids against their formulas and against brute force over all codes.
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <random>
#include <vector>

#include <gptq/gptq.hpp>

#include "support/catch.hpp"

namespace {

/// The least distance from x to a value of the grid.
template <int Bits, class Grid>
float nearest_distance(float x, gptq::grid_params p) {
    float best = std::numeric_limits<float>::infinity();
    for (int code = 0; code < (1 << Bits); ++code)
        best = std::min(best, std::fabs(x - Grid::template decode<Bits>(static_cast<std::uint8_t>(code), p)));
    return best;
}

template <int Bits, class Grid>
void check_grid() {
    std::mt19937 random(Bits);
    std::normal_distribution<float> normal;
    for (int trial = 0; trial < 50; ++trial) {
        const float offset = 2.0f * normal(random);
        std::vector<float> w(1 + static_cast<std::size_t>(trial));
        for (float& x : w) x = normal(random) + offset;
        const auto p = Grid::template fit<Bits>(w);
        REQUIRE(p.scale > 0.0f);
        REQUIRE(p.scale == gptq::round_to_half(p.scale));
        for (const float x : w) {
            const auto code = Grid::template encode<Bits>(x, p);
            REQUIRE(int{code} < (1 << Bits));
            const float distance = std::fabs(x - Grid::template decode<Bits>(code, p));
            REQUIRE(distance <= nearest_distance<Bits, Grid>(x, p) * 1.00001f + 1e-6f);
        }
        for (int code = 0; code < (1 << Bits); ++code) {
            const auto c = static_cast<std::uint8_t>(code);
            REQUIRE(Grid::template encode<Bits>(Grid::template decode<Bits>(c, p), p) == c);
        }
    }
}

template <int Bits, class Grid>
double error_of(const std::vector<float>& w, gptq::grid_params p) {
    double total = 0.0;
    for (const float x : w)
        total += std::pow(std::fabs(x - Grid::template decode<Bits>(Grid::template encode<Bits>(x, p), p)), 2.4f);
    return total;
}

}  // namespace

TEST_CASE("codes are nearest and values are stable on every grid") {
    check_grid<2, gptq::symmetric>();
    check_grid<3, gptq::symmetric>();
    check_grid<4, gptq::symmetric>();
    check_grid<5, gptq::symmetric>();
    check_grid<8, gptq::symmetric>();
    check_grid<2, gptq::asymmetric>();
    check_grid<3, gptq::asymmetric>();
    check_grid<4, gptq::asymmetric>();
    check_grid<7, gptq::asymmetric>();
    check_grid<8, gptq::asymmetric>();
    check_grid<2, gptq::asymmetric_from_one>();
    check_grid<4, gptq::asymmetric_from_one>();
    check_grid<8, gptq::asymmetric_from_one>();
    check_grid<3, gptq::searched<gptq::symmetric>>();
    check_grid<4, gptq::searched<gptq::asymmetric>>();
}

TEST_CASE("symmetric: zero in the middle, scale 2 max|w| / maxq, also for a row without negative weights") {
    // The case that clips at 7/15 of the maximum in other implementations.
    const std::vector<float> positive = {0.1f, 0.4f, 1.0f};
    const auto p = gptq::symmetric::fit<4>(positive);
    CHECK(p.zero == 8);
    CHECK(p.scale == gptq::round_to_half(2.0f / 15.0f));
    CHECK(gptq::symmetric::decode<4>(gptq::symmetric::encode<4>(1.0f, p), p) == Approx(14.0 / 15.0).epsilon(1e-3));
    CHECK(gptq::symmetric::fit<3>(std::vector<float>{-3.5f, 1.0f}).scale == 1.0f);
    CHECK(gptq::symmetric::fit<2>(std::vector<float>{0.0f, 0.0f}) == gptq::grid_params{1.0f, 2});
}

TEST_CASE("asymmetric: the range always holds 0, and 0 is a value of the grid") {
    const auto p = gptq::asymmetric::fit<4>(std::vector<float>{-1.0f, 6.5f});
    CHECK(p.scale == 0.5f);
    CHECK(p.zero == 2);
    const auto up = gptq::asymmetric::fit<4>(std::vector<float>{7.5f, 3.0f});
    CHECK(up == gptq::grid_params{0.5f, 0});
    CHECK(gptq::asymmetric::fit<4>(std::vector<float>{-7.5f, -3.0f}) == gptq::grid_params{0.5f, 15});
    CHECK(gptq::asymmetric::fit<4>(std::vector<float>{0.0f}).scale == 1.0f);
    // v1 cannot store a zero of 0: one level is given up, the maximum still fits
    const auto one = gptq::asymmetric_from_one::fit<4>(std::vector<float>{7.0f, 3.0f});
    CHECK(one == gptq::grid_params{0.5f, 1});
    CHECK(gptq::asymmetric_from_one::fit<4>(std::vector<float>{0.0f}).zero == 1);
}

TEST_CASE("rounding is half to even") {
    const gptq::grid_params p{1.0f, 8};
    CHECK(gptq::symmetric::encode<4>(0.5f, p) == 8);
    CHECK(gptq::symmetric::encode<4>(1.5f, p) == 10);
    CHECK(gptq::symmetric::encode<4>(-0.5f, p) == 8);
    CHECK(gptq::symmetric::encode<4>(-2.5f, p) == 6);
    CHECK(gptq::symmetric::encode<4>(1e30f, p) == 15);
    CHECK(gptq::symmetric::encode<4>(-1e30f, p) == 0);
}

TEST_CASE("weights of any size leave a scale that a half can hold") {
    for (const float size : {1e-38f, 1e-9f, 1e-4f, 1e4f, 1e30f}) {
        const std::vector<float> w = {size, -0.5f * size};
        for (const auto p : {gptq::symmetric::fit<4>(w), gptq::asymmetric::fit<4>(w),
                             gptq::asymmetric_from_one::fit<4>(w), gptq::searched<gptq::asymmetric>::fit<4>(w)}) {
            CHECK(p.scale > 0.0f);
            CHECK(std::isfinite(p.scale));
            CHECK(p.scale == gptq::round_to_half(p.scale));
        }
    }
}

TEST_CASE("the search never raises the error that it minimizes, and lowers it where an outlier stretches the range") {
    std::mt19937 random(9);
    std::normal_distribution<float> normal;
    std::vector<float> w(64);
    for (float& x : w) x = normal(random);
    w[0] = 9.0f;
    using searched = gptq::searched<gptq::symmetric>;
    const double plain = error_of<3, gptq::symmetric>(w, gptq::symmetric::fit<3>(w));
    CHECK(error_of<3, searched>(w, searched::fit<3>(w)) < plain);
    // brute force over the same 80 candidates
    double best = plain;
    for (int i = 0; i < 80; ++i) {
        const float shrink = 1.0f - 0.01f * static_cast<float>(i);
        best = std::min(best,
                        error_of<3, gptq::symmetric>(w, gptq::symmetric::from_range<3>(-9.0f * shrink, 9.0f * shrink)));
    }
    CHECK(error_of<3, searched>(w, searched::fit<3>(w)) == Approx(best).epsilon(1e-9));
}

TEST_CASE("the search by loss finds the best of its candidates by the weights' own costs") {
    std::mt19937 random(10);
    std::normal_distribution<float> normal;
    for (const std::size_t size : {1u, 7u, 8u, 64u, 100u}) {
        std::vector<float> w(size), costs(size);
        for (float& x : w) x = normal(random);
        for (float& c : costs) c = std::exp(2.0f * normal(random));
        const auto loss = [&](gptq::grid_params p) {
            double total = 0.0;
            for (std::size_t k = 0; k < size; ++k) {
                const double error =
                    double{w[k]} - double{gptq::asymmetric::decode<2>(gptq::asymmetric::encode<2>(w[k], p), p)};
                total += double{costs[k]} * error * error;
            }
            return total;
        };
        const auto [lowest, highest] = std::minmax_element(w.begin(), w.end());
        double best = loss(gptq::asymmetric::fit<2>(w));
        for (int i = 0; i < 80; ++i) {
            const float shrink = 1.0f - 0.01f * static_cast<float>(i);
            best = std::min(best, loss(gptq::asymmetric::from_range<2>(std::min(*lowest, 0.0f) * shrink,
                                                                       std::max(*highest, 0.0f) * shrink)));
        }
        using by_loss = gptq::searched_by_loss<gptq::asymmetric>;
        CHECK(loss(by_loss::fit<2>(w, costs)) == Approx(best).epsilon(1e-5).margin(1e-12));
        CHECK(by_loss::fit<2>(w) == by_loss::fit<2>(w, std::vector<float>(size, 3.0f)));  // all alike
    }
}

TEST_CASE("the search by loss turns symmetric grids round where the one value more serves the positive weights") {
    using by_loss = gptq::searched_by_loss<gptq::symmetric>;
    const std::vector<float> up = {1.0f, 0.5f, -0.5f, 0.0f}, down = {-1.0f, -0.5f, 0.5f, 0.0f};
    CHECK(by_loss::fit<2>(up) == gptq::grid_params{-0.5f, 2});  // both exact: -2 .. 1 times the scale
    CHECK(by_loss::fit<2>(down) == gptq::grid_params{0.5f, 2});
    CHECK(gptq::searched<gptq::symmetric>::fit<2>(up).scale > 0.0f);  // the published search does not
    CHECK(gptq::searched_by_loss<gptq::asymmetric>::fit<2>(up).scale > 0.0f);

    std::mt19937 random(12);
    std::normal_distribution<float> normal;
    std::size_t turned = 0;
    for (int group = 0; group < 50; ++group) {
        std::vector<float> w(32);
        for (float& x : w) x = normal(random);
        double best = std::numeric_limits<double>::infinity();  // over both signs of all 80 scales, the long way
        for (int i = 0; i < 160; ++i) {
            const float shrink = 1.0f - 0.01f * static_cast<float>(i / 2);
            float largest = 0.0f;
            for (const float x : w) largest = std::max(largest, std::fabs(x));
            const double scale = (i % 2 == 0 ? 1.0 : -1.0) * gptq::round_to_half(2.0f * shrink * largest / 7.0f);
            double loss = 0.0;
            for (const float x : w) {
                double least = std::numeric_limits<double>::infinity();
                for (int level = -4; level < 4; ++level) least = std::min(least, std::fabs(x - scale * level));
                loss += least * least;
            }
            best = std::min(best, loss);
        }
        const gptq::grid_params p = by_loss::fit<3>(w);
        double loss = 0.0;
        for (const float x : w) {
            const double error = double{x} - double{by_loss::decode<3>(by_loss::encode<3>(x, p), p)};
            loss += error * error;
        }
        CHECK(loss == Approx(best).epsilon(1e-5));
        turned += p.scale < 0.0f;
    }
    CHECK(turned > 10);
    CHECK(turned < 40);
}

TEST_CASE("the solver tells the search what each weight costs") {
    // One row, one group, independent inputs: the loss of weight k is H[k,k], so the best grid is known by brute force.
    constexpr std::size_t K = 16;
    gptq::matrix<float> W(1, K), X(K, K);
    std::mt19937 random(11);
    std::normal_distribution<float> normal;
    std::vector<float> costs(K);
    for (std::size_t k = 0; k < K; ++k) {
        W(0, k) = normal(random);
        X(k, k) = std::exp(2.0f * normal(random));
        costs[k] = X(k, k) * X(k, k);
    }
    gptq::hessian<float> h(K);
    h.add(X.view());
    using grid = gptq::searched_by_loss<gptq::symmetric>;
    const auto expected = grid::fit<2>({W.data(), K}, costs);
    const auto scale_of = [&]<class Order>() {
        const auto q = gptq::quantize<gptq::scheme<2, gptq::group_size<K>, grid, Order>>(
            W.view(), h, {.damp_percent = 0.0, .block_size = 4});
        return q.scales(0, 0);
    };
    CHECK(expected.scale != grid::fit<2>({W.data(), K}).scale);
    CHECK(scale_of.operator()<gptq::natural_order>() == expected.scale);
    CHECK(scale_of.operator()<gptq::act_order>() == expected.scale);
    CHECK(scale_of.operator()<gptq::act_order_static>() == expected.scale);
    CHECK(scale_of.operator()<gptq::group_aware_order>() == expected.scale);
}
