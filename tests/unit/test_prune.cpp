// Pruning, against the paper's algorithm written out in double (Frantar and Alistarh 2023, algorithm 1).
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <utility>
#include <vector>

#include <gptq/gptq.hpp>
#include <gptq/reference_backend.hpp>

#include "support/catch.hpp"
#include "support/random_layer.hpp"
#include "support/schemes.hpp"

namespace {

using gptq::matrix;
using gptq::sparsity;
using gptq::sparsity_pattern;
using natural = gptq::scheme<4, gptq::group_size<16>>;

/// U with U'U = H^-1, upper triangular: the inverse by Gauss and Jordan, then Cholesky.                        H [K, K]
matrix<double> inverse_factor(matrix<double> H) {
    const std::size_t K = H.rows();
    matrix<double> R(K, K), U(K, K);
    for (std::size_t i = 0; i < K; ++i) R(i, i) = 1.0;
    for (std::size_t p = 0; p < K; ++p) {
        const double pivot = H(p, p);
        for (std::size_t j = 0; j < K; ++j) {
            H(p, j) /= pivot;
            R(p, j) /= pivot;
        }
        for (std::size_t i = 0; i < K; ++i) {
            if (i == p) continue;
            const double f = H(i, p);
            for (std::size_t j = 0; j < K; ++j) {
                H(i, j) -= f * H(p, j);
                R(i, j) -= f * R(p, j);
            }
        }
    }
    for (std::size_t i = 0; i < K; ++i)
        for (std::size_t j = i; j < K; ++j) {
            double rest = R(i, j);
            for (std::size_t m = 0; m < i; ++m) rest -= U(m, i) * U(m, j);
            U(i, j) = i == j ? std::sqrt(rest) : rest / U(i, i);
        }
    return U;
}

/// The paper's algorithm. Blocks of `block` columns for masks and updates alike; `round` is what a weight that stays
/// becomes.
template <class Round>
matrix<double> sparse_gpt(matrix<double> W, const matrix<double>& U, const sparsity_pattern& pattern, std::size_t block,
                          const Round& round) {
    const std::size_t N = W.rows(), K = W.cols();
    matrix<char> stays(N, K);
    const auto score = [&](std::size_t n, std::size_t k) { return W(n, k) * W(n, k) / (U(k, k) * U(k, k)); };
    // The `gone` least of the scores in rows [top, bottom) and columns [left, right) go.
    const auto choose = [&](std::size_t top, std::size_t bottom, std::size_t left, std::size_t right,
                            std::size_t gone) {
        std::vector<std::pair<double, std::pair<std::size_t, std::size_t>>> all;
        for (std::size_t n = top; n < bottom; ++n)
            for (std::size_t k = left; k < right; ++k) all.push_back({score(n, k), {n, k}});
        std::sort(all.begin(), all.end());
        for (std::size_t i = 0; i < all.size(); ++i) stays(all[i].second.first, all[i].second.second) = i >= gone;
    };
    matrix<double> Q(N, K);
    for (std::size_t k = 0; k < K; ++k) {
        if (pattern.of == 0 && k % block == 0) {
            const std::size_t end = std::min(k + block, K);
            choose(0, N, k, end, static_cast<std::size_t>(pattern.share * static_cast<double>(N * (end - k))));
        }
        for (std::size_t n = 0; n < N; ++n) {
            if (pattern.of != 0 && k % pattern.of == 0) choose(n, n + 1, k, k + pattern.of, pattern.of - pattern.kept);
            Q(n, k) = round(n, k, W, stays(n, k) ? W(n, k) : 0.0);
            const double error = (W(n, k) - Q(n, k)) / U(k, k);
            for (std::size_t j = k; j < K; ++j) W(n, j) -= error * U(k, j);
        }
    }
    return Q;
}

const auto as_it_is = [](std::size_t, std::size_t, const matrix<double>&, double w) { return w; };

struct setting {
    gptq_test::random_layer layer;
    gptq::hessian<float> h;
    matrix<double> W, U;

    setting(std::size_t N, std::size_t K, unsigned seed)
        : layer(gptq_test::make_layer(N, K, 3 * K, seed)), h(K), W(N, K), U(K, K) {
        h.add(layer.X.view());
        matrix<double> H(K, K);
        for (std::size_t i = 0; i < K; ++i)
            for (std::size_t j = 0; j < K; ++j)
                H(i, j) = double{h.upper()(std::min(i, j), std::max(i, j))} +
                          (i == j ? 0.01 * gptq_test::mean_diagonal(h) : 0.0);
        U = inverse_factor(H);
        for (std::size_t i = 0; i < N * K; ++i) W.data()[i] = double{layer.W.data()[i]};
    }
    double error(const gptq::tensor2<float>& Q) const { return gptq_test::damped_error(layer.W.view(), Q, h, 0.0); }
};

/// How many elements are 0 in one and not in the other, and the largest difference of the others.
std::pair<std::size_t, double> compare(const matrix<double>& expected, const gptq::tensor2<float>& got) {
    std::size_t masks = 0;
    double largest = 0.0;
    for (std::size_t n = 0; n < expected.rows(); ++n)
        for (std::size_t k = 0; k < expected.cols(); ++k) {
            masks += (expected(n, k) == 0.0) != (got(n, k) == 0.0f) ? 1 : 0;
            largest = std::max(largest, std::fabs(expected(n, k) - double{got(n, k)}));
        }
    return {masks, largest};
}

std::size_t zeros(const gptq::tensor2<float>& Q) {
    return static_cast<std::size_t>(std::count(Q.begin(), Q.end(), 0.0f));
}

/// Whether exactly `kept` of every `of` neighbours are not 0.
bool holds(const gptq::tensor2<float>& Q, std::size_t kept, std::size_t of) {
    for (std::size_t n = 0; n < Q.shape()[0]; ++n)
        for (std::size_t k = 0; k < Q.shape()[1]; k += of) {
            std::size_t stay = 0;
            for (std::size_t i = k; i < k + of; ++i) stay += Q(n, i) != 0.0f ? 1 : 0;
            if (stay != kept) return false;
        }
    return true;
}

}  // namespace

TEST_CASE("pruning is the paper's algorithm, for n:m patterns and for shares of a block") {
    const setting s(12, 96, 3);
    const auto f = gptq::factorize<natural>(s.h);
    for (const std::size_t block : {16u, 32u, 128u})
        for (const auto& pattern : {sparsity_pattern::structured(2, 4), sparsity_pattern::structured(1, 4),
                                    sparsity_pattern::structured(4, 8), sparsity_pattern::unstructured(0.5),
                                    sparsity_pattern::unstructured(0.31)}) {
            CAPTURE(block, pattern.kept, pattern.of, pattern.share);
            const auto expected = sparse_gpt(s.W, s.U, pattern, block, as_it_is);
            const auto got = gptq::prune(s.layer.W.view(), f, pattern, {.block_size = block});
            const auto [masks, largest] = compare(expected, got.weights);
            CHECK(masks == 0);
            CHECK(largest < 1e-4);
            if (pattern.of != 0) CHECK(holds(got.weights, pattern.kept, pattern.of));
            CHECK(got.report.loss == Approx(gptq_test::damped_error(s.layer.W.view(), got.weights, s.h,
                                                                    0.01 * gptq_test::mean_diagonal(s.h)))
                                         .epsilon(1e-3));
            CHECK(s.error(got.weights) < 0.7 * s.error(gptq::prune_by_magnitude(s.layer.W.view(), pattern)));
        }
}

TEST_CASE("both paths and every backend prune alike, and a pattern may be a type") {
    const setting s(9, 64, 4);
    const auto expected = gptq::prune<sparsity<2, 4>>(s.layer.W.view(), gptq::factorize<natural>(s.h));
    const gptq::reference_backend reference;
    const auto by_paper = gptq::factorize<natural>(s.h, {}, gptq::cpu_backend{}, gptq::paper_path{});
    const auto on_reference = gptq::factorize<natural>(s.h, {}, reference);
    for (const auto& got : {gptq::prune<sparsity<2, 4>>(s.layer.W.view(), by_paper),
                            gptq::prune<sparsity<2, 4>>(s.layer.W.view(), on_reference)}) {
        std::size_t masks = 0;
        for (std::size_t i = 0; i < 9 * 64; ++i) {
            masks += (expected.weights.data()[i] == 0.0f) != (got.weights.data()[i] == 0.0f) ? 1 : 0;
            CHECK(got.weights.data()[i] == Approx(expected.weights.data()[i]).margin(1e-4));
        }
        CHECK(masks == 0);
    }
}

TEST_CASE("an unstructured share holds exactly in any order, and weights return to their columns") {
    const setting s(10, 80, 5);
    using act = gptq::scheme<4, gptq::group_size<16>, gptq::symmetric, gptq::act_order>;
    const auto f = gptq::factorize<act>(s.h);
    const auto got = gptq::prune(s.layer.W.view(), f, sparsity_pattern::unstructured(0.5), {.block_size = 16});
    CHECK(zeros(got.weights) == 10 * 80 / 2);
    CHECK(s.error(got.weights) <
          0.7 * s.error(gptq::prune_by_magnitude(s.layer.W.view(), sparsity_pattern::unstructured(0.5))));
    CHECK(zeros(gptq::prune(s.layer.W.view(), f, sparsity_pattern::unstructured(0.0)).weights) == 0);
}

TEST_CASE("pruned and quantized in one pass, codes as the algorithm written out has them") {
    const setting s(10, 64, 6);
    const auto f = gptq::factorize<natural>(s.h);
    for (const auto& pattern : {sparsity_pattern::structured(2, 4), sparsity_pattern::unstructured(0.5)}) {
        std::vector<gptq::grid_params> params(10);
        const auto round = [&](std::size_t n, std::size_t k, const matrix<double>& W, double w) -> double {
            if (k % 16 == 0) {
                std::vector<float> group;
                for (std::size_t i = k; i < k + 16; ++i) group.push_back(static_cast<float>(W(n, i)));
                params[n] = gptq::symmetric::fit<4>(group);
            }
            return double{
                gptq::symmetric::decode<4>(gptq::symmetric::encode<4>(static_cast<float>(w), params[n]), params[n])};
        };
        const auto expected = sparse_gpt(s.W, s.U, pattern, 32, round);
        const auto q = gptq::prune_and_quantize<natural>(s.layer.W.view(), f, pattern, {.block_size = 32});
        const auto got = gptq::dequantize(q);
        std::size_t different = 0;
        for (std::size_t n = 0; n < 10; ++n) {
            bool same = true;
            for (std::size_t k = 0; k < 64; ++k) same = same && std::fabs(expected(n, k) - double{got(n, k)}) < 1e-4;
            different += same ? 0 : 1;
        }
        CHECK(different <= 1);  // float against double: a weight on a tie takes its row along
        CHECK(zeros(got) >= 10 * 64 / 2);
        // better than one after the other by size and to the nearest
        const auto apart =
            gptq::dequantize(gptq::round_to_nearest<natural>(gptq::prune_by_magnitude(s.layer.W.view(), pattern)));
        CHECK(s.error(got) < 0.7 * s.error(apart));
    }
}

TEST_CASE("groups of every size go with pruning") {
    const setting s(6, 96, 7);
    for (const int size : {4, 8, 32, 48, gptq::per_channel}) {
        using S = gptq::scheme<3, gptq::group_size<gptq::dynamic>, gptq::asymmetric>;
        const auto f = gptq::factorize<S>(s.h, {.group_size = size});
        const auto q = gptq::prune_and_quantize<S>(s.layer.W.view(), f, sparsity<2, 4>::pattern, {.block_size = 16});
        const auto Q = gptq::dequantize(q);
        CAPTURE(size);
        for (std::size_t n = 0; n < 6; ++n)
            for (std::size_t k = 0; k < 96; k += 4) {
                std::size_t gone = 0;
                for (std::size_t i = k; i < k + 4; ++i) gone += Q(n, i) == 0.0f ? 1 : 0;
                REQUIRE(gone >= 2);
            }
        CHECK(q.report.loss ==
              Approx(gptq_test::damped_error(s.layer.W.view(), Q, s.h, 0.01 * gptq_test::mean_diagonal(s.h)))
                  .epsilon(1e-3));
    }
}

TEST_CASE("without a factor the layer is pruned by magnitude and says so") {
    const setting s(5, 16, 8);
    gptq::hessian<float> h(16);
    h.add(matrix<float>(20, 16).view());
    const auto got = gptq::prune<sparsity<2, 4>>(s.layer.W.view(), gptq::factorize<natural>(h));
    CHECK(got.report.rounded_to_nearest);
    CHECK(got.weights == gptq::prune_by_magnitude(s.layer.W.view(), sparsity<2, 4>::pattern));
    for (std::size_t n = 0; n < 5; ++n)
        for (std::size_t k = 0; k < 16; k += 4) {
            std::vector<float> sizes;
            for (std::size_t i = k; i < k + 4; ++i) sizes.push_back(std::fabs(s.layer.W(n, i)));
            std::sort(sizes.begin(), sizes.end());
            for (std::size_t i = k; i < k + 4; ++i)
                CHECK(got.weights(n, i) == (std::fabs(s.layer.W(n, i)) >= sizes[2] ? s.layer.W(n, i) : 0.0f));
        }
}

TEST_CASE("patterns that cannot be are refused") {
    const setting s(4, 32, 9);
    const auto f = gptq::factorize<natural>(s.h);
    using act = gptq::scheme<4, gptq::group_size<16>, gptq::symmetric, gptq::act_order>;
    const auto by_size = gptq::factorize<act>(s.h);
    const auto W = s.layer.W.view();
    for (const auto& pattern : {sparsity_pattern::structured(4, 4), sparsity_pattern::structured(0, 4),
                                sparsity_pattern::structured(2, 5), sparsity_pattern::unstructured(1.0),
                                sparsity_pattern::unstructured(-0.1), sparsity_pattern::unstructured(std::nan(""))})
        CHECK_THROWS_AS(gptq::prune(W, f, pattern), gptq::option_error);
    CHECK_THROWS_AS((gptq::prune<sparsity<2, 4>>(W, by_size)), gptq::option_error);
    CHECK_THROWS_AS(gptq::prune_and_quantize<natural>(W, f, sparsity<2, 4>::pattern, {.candidates = 2}),
                    gptq::option_error);
    CHECK_THROWS_AS(gptq::prune_and_quantize<natural>(W, f, sparsity<2, 4>::pattern, {.refine = {.rounds = 1}}),
                    gptq::option_error);
}
