// Grids fitted by the lanes of a warp are those of the plain loops, bit by bit.
#include <algorithm>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <random>
#include <span>
#include <vector>

#include <gptq/backends/cuda/fit_kernel.hpp>
#include <gptq/backends/cuda/host_context.hpp>
#include <gptq/backends/cuda/solve_kernel.hpp>
#include <gptq/grids/affine.hpp>
#include <gptq/grids/nf4.hpp>
#include <gptq/matrix_view.hpp>
#include <gptq/quantize.hpp>

#include "support/catch.hpp"

using gptq::matrix;
using gptq::matrix_view;
using gptq::cuda::fit_kernel;
using gptq::cuda::host_context;
using gptq::cuda::host_launch;

namespace {

/// Shuffles by XOR that reach the lane next to the one asked for.
struct with_shifted_xor : host_context {
    using host_context::host_context;
    template <class T>
    T shuffle_xor(T value, std::size_t mask) {
        return shuffle(value, ((lane() ^ mask) + 1) % gptq::cuda::warp_size);
    }
};

/// A grid of a user's own, which no kernel knows.
struct halved : gptq::symmetric {
    template <int Bits>
    static constexpr gptq::grid_params fit(std::span<const float> w) {
        const gptq::grid_params p = gptq::symmetric::fit<Bits>(w);
        return {0.5f * p.scale, p.zero};
    }
};
static_assert(!gptq::cuda::detail::fits_range<halved>);

/// A search that a user has changed is no search of the library's.
struct changed_search : gptq::searched_by_loss<gptq::symmetric> {};
static_assert(!gptq::SearchedGrid<changed_search, 4> && !gptq::SearchedGrid<gptq::symmetric, 4>);
static_assert(gptq::SearchedGrid<gptq::searched<gptq::asymmetric>, 4>);

/// Random weights; then rows of equal ones, of zeros, of one sign, of large ones, and with few that stand out.  [6, K]
matrix<float> telling_weights(std::size_t K, float large) {
    std::mt19937 random(3);
    std::normal_distribution<float> normal;
    matrix<float> W(6, K);
    for (std::size_t k = 0; k < K; ++k) {
        W(0, k) = 0.1f * normal(random);
        W(1, k) = -0.25f;
        W(2, k) = 0.0f;
        W(3, k) = std::fabs(normal(random));
        W(4, k) = large * std::clamp(normal(random), -3.0f, 3.0f);
        W(5, k) = k % 5 == 0 ? 8.0f : 0.01f * normal(random);
    }
    return W;
}

/// Positive numbers over some decades.                                                                        [1, K]
matrix<float> random_costs(std::size_t K) {
    std::mt19937 random(4);
    std::normal_distribution<float> normal;
    matrix<float> costs(1, K);
    for (std::size_t k = 0; k < K; ++k) costs(0, k) = std::exp(normal(random));
    return costs;
}

struct fitted_groups {
    matrix<float> scales;        // [N, G]
    matrix<std::uint8_t> zeros;  // [N, G]
    fitted_groups(std::size_t N, std::size_t G) : scales(N, G), zeros(N, G) {}
    gptq::group_parameters view() { return {scales.view(), zeros.view()}; }
};

template <class T>
bool same(const matrix<T>& a, const matrix<T>& b) {
    return std::equal(a.data(), a.data() + a.rows() * a.cols(), b.data(), b.data() + b.rows() * b.cols());
}
bool same(const fitted_groups& a, const fitted_groups& b) { return same(a.scales, b.scales) && same(a.zeros, b.zeros); }

/// Two groups and a short one in each row, numbered from 1; losses of some overflow.
template <int Bits, class Grid, class Context = host_context>
bool fits_as_plain_loops(std::size_t group_features, bool with_costs) {
    const std::size_t K = 2 * group_features + 3;
    const auto W = telling_weights(K, 1e38f), costs = random_costs(K);
    fitted_groups expected(W.rows(), 4), got(W.rows(), 4);
    gptq::groups_to_fit<Bits, Grid> fit{W.view(), {}, expected.view(), 1, group_features, Grid{}};
    if (with_costs) fit.costs = costs.view();
    for (std::size_t r = 0; r < W.rows(); ++r) fit(r);
    fit.groups = got.view();
    const fit_kernel<Bits, Grid> kernel{W.rows(), fit};
    host_launch<Context>(kernel.launch(), kernel);
    return same(expected, got);
}

template <class Grid>
void check_fits() {
    for (const std::size_t group_features : {7u, 32u, 128u})
        for (const bool with_costs : {false, true}) {
            CAPTURE(group_features, with_costs);
            CHECK(fits_as_plain_loops<2, Grid>(group_features, with_costs));
            CHECK(fits_as_plain_loops<3, Grid>(group_features, with_costs));
            CHECK(fits_as_plain_loops<4, Grid>(group_features, with_costs));
            CHECK(fits_as_plain_loops<8, Grid>(group_features, with_costs));
        }
}

/// What the solver's loop works on for 6 rows of b columns in groups, and what it leaves.
struct loop_memory {
    matrix<float> T, W;          // [6, b]
    matrix<float> U;             // [b, b]
    matrix<float> costs;         // [1, b]
    matrix<std::uint8_t> codes;  // [6, b]
    matrix<double> loss;         // [6, 1]
    matrix<std::size_t> groups;  // [1, b]
    fitted_groups grids;

    loop_memory(std::size_t b, std::size_t group_features)
        : T(telling_weights(b, 1e15f)),
          W(telling_weights(b, 1e15f)),
          U(b, b),
          costs(random_costs(b)),
          codes(6, b),
          loss(6, 1),
          groups(1, b),
          grids(6, (b + group_features - 1) / group_features) {
        std::mt19937 random(5);
        std::normal_distribution<float> normal;
        for (std::size_t i = 0; i < b; ++i) {
            groups(0, i) = i / group_features;
            U(i, i) = 1.0f / std::sqrt(costs(0, i));
            for (std::size_t j = i + 1; j < b; ++j) U(i, j) = 0.1f * normal(random);
        }
    }
    template <int Bits, class Grid>
    gptq::block_to_quantize<Bits, Grid> block() {
        return {{T.view(), W.view(), U.view(), costs.view(), loss.view(), 0},
                grids.view(),
                codes.view(),
                groups.view(),
                true,
                1,
                Grid{}};
    }
    friend bool same_results(const loop_memory& a, const loop_memory& b) {
        return same(a.codes, b.codes) && same(a.grids, b.grids) && same(a.T, b.T) && same(a.W, b.W);
    }
};

template <int Bits, class Grid>
bool solves_as_plain_loop(std::size_t group_features) {
    constexpr std::size_t columns = 45;  // groups that end within tiles, a short one last
    loop_memory expected(columns, group_features), got(columns, group_features);
    const gptq::quantize_row<Bits, Grid> plain{expected.block<Bits, Grid>()};
    for (std::size_t r = 0; r < 6; ++r) plain(r);
    const gptq::cuda::solve_kernel<Bits, Grid> kernel{6, got.block<Bits, Grid>()};
    host_launch(kernel.launch(), kernel);
    return same_results(expected, got);
}

/// Weights on, next to and between the places where the nearest value changes, and far outside.
template <int Bits, class Grid>
std::size_t rounded_otherwise(gptq::grid_params p) {
    const gptq::cuda::grid_rounder<Bits, Grid> rounder(p);
    std::vector<float> tried{0.0f, -0.0f, 1e-45f, 1e-38f, std::numeric_limits<float>::max()};
    for (int step = -(2 << Bits); step <= 2 << Bits; ++step) {
        const float tie = 0.5f * static_cast<float>(step) * p.scale;
        float below = tie, above = tie;
        for (int i = 0; i < 8; ++i) {
            tried.insert(tried.end(), {below, above});
            below = std::nextafter(below, -std::numeric_limits<float>::infinity());
            above = std::nextafter(above, std::numeric_limits<float>::infinity());
        }
    }
    std::size_t wrong = 0;
    for (const float x : tried)
        for (const float w : {x, -x})
            wrong += std::bit_cast<std::uint32_t>(rounder.nearest(w)) !=
                     std::bit_cast<std::uint32_t>(Grid::template nearest<Bits>(w, p));
    return wrong;
}

}  // namespace

TEST_CASE("warps search grids by loss as the plain loops do", "[many]") {
    check_fits<gptq::searched_by_loss<gptq::symmetric>>();
    check_fits<gptq::searched_by_loss<gptq::asymmetric>>();
    check_fits<gptq::searched_by_loss<gptq::asymmetric_from_one>>();
}

TEST_CASE("warps search grids by the reference's measure as the plain loops do", "[many]") {
    check_fits<gptq::searched<gptq::symmetric>>();
    check_fits<gptq::searched<gptq::asymmetric>>();
    check_fits<gptq::searched<gptq::asymmetric_from_one>>();
}

TEST_CASE("warps fit grids that are no searches as the plain loops do") {
    CHECK(fits_as_plain_loops<4, gptq::symmetric>(32, true));
    CHECK(fits_as_plain_loops<8, gptq::asymmetric>(7, false));
    CHECK(fits_as_plain_loops<3, gptq::asymmetric_from_one>(40, false));
    CHECK(fits_as_plain_loops<4, halved>(7, true));
    CHECK(fits_as_plain_loops<2, changed_search>(7, true));
}

TEST_CASE("the solver's kernel searches grids as the plain loop does") {
    CHECK(solves_as_plain_loop<2, gptq::searched_by_loss<gptq::asymmetric_from_one>>(7));
    CHECK(solves_as_plain_loop<4, gptq::searched_by_loss<gptq::symmetric>>(20));
    CHECK(solves_as_plain_loop<3, gptq::searched<gptq::asymmetric>>(32));
    CHECK(solves_as_plain_loop<8, gptq::searched_by_loss<gptq::asymmetric>>(45));
    CHECK(solves_as_plain_loop<4, gptq::searched_by_loss<gptq::nf4>>(24));
}

TEST_CASE("rounding without a division rounds as a division does") {
    std::mt19937 random(6);
    for (int i = 0; i < 300; ++i) {
        // Scales of every size that a half has, subnormal ones too.
        const gptq::half scale{static_cast<std::uint16_t>(1 + random() % 0x7bffu)};
        const gptq::grid_params p{gptq::to_float(scale), static_cast<std::uint8_t>(random() % 16)};
        CAPTURE(p.scale, int{p.zero});
        CHECK(rounded_otherwise<4, gptq::asymmetric>(p) == 0);
        CHECK(rounded_otherwise<4, gptq::symmetric>({-p.scale, 8}) == 0);
        CHECK(rounded_otherwise<8, gptq::asymmetric>(p) == 0);
    }
}

TEST_CASE("a fault in the shuffles that compare candidates is seen") {
    CHECK(fits_as_plain_loops<4, gptq::searched_by_loss<gptq::symmetric>>(32, true));
    CHECK_FALSE(fits_as_plain_loops<4, gptq::searched_by_loss<gptq::symmetric>, with_shifted_xor>(32, true));
}
