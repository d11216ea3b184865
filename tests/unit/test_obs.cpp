// GPTQ against the update it was derived from: Optimal Brain Surgeon, one column at a time, with the explicit inverse.
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <vector>

#include <gptq/gptq.hpp>

#include "support/catch.hpp"
#include "support/random_layer.hpp"

namespace {

using gptq::matrix;

/// Gauss-Jordan in double.                                                                                  S [n, n]
matrix<double> inverse(matrix<double> S) {
    const std::size_t n = S.rows();
    matrix<double> R(n, n);
    for (std::size_t i = 0; i < n; ++i) R(i, i) = 1.0;
    for (std::size_t p = 0; p < n; ++p) {
        const double pivot = S(p, p);
        for (std::size_t j = 0; j < n; ++j) {
            S(p, j) /= pivot;
            R(p, j) /= pivot;
        }
        for (std::size_t i = 0; i < n; ++i) {
            if (i == p) continue;
            const double f = S(i, p);
            for (std::size_t j = 0; j < n; ++j) {
                S(i, j) -= f * S(p, j);
                R(i, j) -= f * R(p, j);
            }
        }
    }
    return R;
}

/// Quantizes column after column in `order`; after each, the columns left move by the OBS update and the inverse loses
/// that column. Grids are fitted to the weights as they stand when their group begins.
template <int Bits, class Grid>
matrix<std::uint8_t> obs(matrix<double> W, matrix<double> H, const std::vector<std::size_t>& order,
                         std::size_t group_features) {
    const std::size_t N = W.rows(), K = W.cols();
    matrix<double> R = inverse(H);
    matrix<std::uint8_t> codes(N, K);
    std::vector<gptq::grid_params> params(N);
    for (std::size_t p = 0; p < K; ++p) {
        const std::size_t k = order[p];
        for (std::size_t n = 0; n < N; ++n) {
            if (p % group_features == 0) {
                std::vector<float> group;
                for (std::size_t i = p; i < std::min(p + group_features, K); ++i)
                    group.push_back(static_cast<float>(W(n, order[i])));
                params[n] = Grid::template fit<Bits>(group);
            }
            codes(n, k) = Grid::template encode<Bits>(static_cast<float>(W(n, k)), params[n]);
            const double q = Grid::template decode<Bits>(codes(n, k), params[n]);
            const double step = (W(n, k) - q) / R(k, k);
            for (std::size_t i = p; i < K; ++i) W(n, order[i]) -= step * R(k, order[i]);
        }
        const matrix<double> before = R;
        for (std::size_t i = 0; i < K; ++i)
            for (std::size_t j = 0; j < K; ++j) R(i, j) -= before(i, k) * before(k, j) / before(k, k);
    }
    return codes;
}

template <int Bits, class Grid, class Order>
void compare(int group_size, std::size_t block_size) {
    constexpr std::size_t N = 8, K = 40, T = 100;
    const auto layer = gptq_test::make_layer(N, K, T, 11);
    gptq::hessian<float> h(K);
    h.add(layer.X.view());
    matrix<double> W(N, K), H(K, K);
    double mean = 0.0;
    std::vector<float> diag(K);
    for (std::size_t i = 0; i < K; ++i) {
        for (std::size_t n = 0; n < N; ++n) W(n, i) = layer.W(n, i);
        for (std::size_t j = 0; j < K; ++j) H(i, j) = h.upper()(std::min(i, j), std::max(i, j));
        diag[i] = h.upper()(i, i);
        mean += double{diag[i]} / K;
    }
    for (std::size_t i = 0; i < K; ++i) H(i, i) += 0.01 * mean;
    using S = gptq::scheme<Bits, gptq::group_size<gptq::dynamic>, Grid, Order>;
    const std::size_t group_features = S::group::features(K, group_size);
    const auto expected = obs<Bits, Grid>(W, H, Order{}(diag, group_features), group_features);
    const auto q = gptq::quantize<S>(layer.W.view(), h,
                                     {.damp_percent = 0.01, .block_size = block_size, .group_size = group_size});
    std::size_t rows = 0;
    for (std::size_t n = 0; n < N; ++n) {
        bool same = true;
        for (std::size_t k = 0; k < K; ++k) same = same && expected(n, k) == q.codes(n, k);
        rows += same ? 0 : 1;
    }
    CAPTURE(Bits, group_size, block_size);
    CHECK(rows <= 1);  // float against double: a weight on a tie may fall the other way and take its row with it
}

}  // namespace

TEST_CASE("the codes are those of Optimal Brain Surgeon, grids fitted to up-to-date weights") {
    for (const int g : {4, 8, 16, 20, gptq::per_channel})
        for (const std::size_t block : {8u, 16u, 128u}) {
            compare<4, gptq::symmetric, gptq::natural_order>(g, block);
            compare<3, gptq::asymmetric, gptq::natural_order>(g, block);
            compare<2, gptq::asymmetric, gptq::act_order>(g, block);
            compare<8, gptq::symmetric, gptq::group_aware_order>(g, block);
        }
}

TEST_CASE("the worked example of the factor: H^-1 = [[4,2,6],[2,5,7],[6,7,22]] has U = [[2,1,3],[0,2,2],[0,0,3]]") {
    matrix<double> inverted(3, 3);
    const double values[] = {4, 2, 6, 2, 5, 7, 6, 7, 22};
    for (std::size_t i = 0; i < 9; ++i) inverted.data()[i] = values[i];
    const matrix<double> H = inverse(inverted);
    matrix<float> U(3, 3), A(3, 3);
    for (std::size_t i = 0; i < 9; ++i) A.data()[i] = U.data()[i] = static_cast<float>(H.data()[i]);
    const gptq::cpu_backend backend;
    REQUIRE(backend.inverse_factor_upper(U.view()));
    const float expected[] = {2, 1, 3, 0, 2, 2, 0, 0, 3};
    for (std::size_t i = 0; i < 9; ++i) CHECK(U.data()[i] == Approx(expected[i]).margin(1e-4));
    REQUIRE(backend.factor_upper(A.view()));  // the other path's factor is its inverse
    matrix<float> product(3, 3);
    backend.multiply(product.view(), A.view(), U.view(), 1.0f, 0.0f);
    for (std::size_t i = 0; i < 3; ++i)
        for (std::size_t j = 0; j < 3; ++j) CHECK(product(i, j) == Approx(i == j ? 1.0 : 0.0).margin(1e-4));
}
