// Damping chosen by the layer: the rule itself, and what it does for tokens that the Hessian has not seen.
#include <algorithm>
#include <cstddef>
#include <vector>

#include <gptq/damping.hpp>
#include <gptq/gptq.hpp>

#include "support/catch.hpp"
#include "support/random_layer.hpp"

namespace {

using gptq::automatic_damping;

/// 16 outputs, 64 inputs of which three are a hundred times as large as the others, 200 tokens to see and many more.
struct setting {
    static constexpr std::size_t N = 16, K = 64, seen = 200, T = 6000;
    gptq_test::random_layer layer;
    gptq::hessian<float> h{K}, unseen{K};
    explicit setting(unsigned seed) : layer(gptq_test::make_layer(N, K, T, seed)) {
        for (std::size_t t = 0; t < T; ++t)
            for (const std::size_t k : {5u, 23u, 50u}) layer.X(t, k) *= 100.0f;
        h.add(layer.X.view().block(0, seen, 0, K));
        unseen.add(layer.X.view().block(seen, T - seen, 0, K));
    }
    template <class S>
    double error(const gptq::quantize_options& options) const {
        return gptq::layer_error(layer.W.view(), gptq::quantize<S>(layer.W.view(), h, options), unseen);
    }
};

}  // namespace

TEST_CASE("the damping is a twentieth of the median, whatever the largest inputs are") {
    std::vector<float> diagonal(100, 1.0f);
    CHECK(automatic_damping(diagonal) == Approx(0.05));
    diagonal[17] = 10001.0f;  // the mean is 101
    CHECK(automatic_damping(diagonal) == Approx(0.05 / 101.0));
    for (std::size_t k = 0; k < 100; ++k) diagonal[(37 * k) % 100] = static_cast<float>(k + 1);
    CHECK(automatic_damping(diagonal) == Approx(0.05 * 51.0 / 50.5));
}

TEST_CASE("the size of the inputs, and inputs that are always 0, change nothing") {
    const std::vector<float> diagonal{0.5f, 2.0f, 8.0f, 1.0f, 90.0f};
    const double damping = automatic_damping(diagonal);
    auto other = diagonal;
    for (float& d : other) d *= 1024.0f;
    CHECK(automatic_damping(other) == Approx(damping));
    other.insert(other.begin() + 2, 20, 0.0f);
    CHECK(automatic_damping(other) == Approx(damping));
}

TEST_CASE("there is always some damping") {
    CHECK(automatic_damping(std::vector<float>{1e-9f, 1e-9f, 1.0f}) == 1e-4);
    CHECK(automatic_damping(std::vector<float>(8, 0.0f)) == 0.01);
    CHECK(automatic_damping({}) == 0.01);
}

TEST_CASE("beside huge inputs the others do better on unseen tokens, and about as well as they can") {
    const gptq::quantize_options automatic{.choose_damping = true};
    const auto check = [&]<class S>() {
        double chosen = 0.0, usual = 0.0, best = 0.0;
        for (unsigned seed = 31; seed < 35; ++seed) {
            const setting s(seed);
            chosen += s.error<S>(automatic);
            usual += s.error<S>({});
            double least = s.error<S>({.damp_percent = 1e-5});
            for (const double damping : {1e-4, 3e-4, 1e-3, 3e-3, 0.03, 0.1})
                least = std::min(least, s.error<S>({.damp_percent = damping}));
            best += least;
        }
        CAPTURE(S::bits, chosen, usual, best);
        CHECK(chosen < 0.9 * usual);
        CHECK(chosen < 1.15 * best);
    };
    check.operator()<gptq::scheme<4, gptq::group_size<16>, gptq::symmetric, gptq::group_aware_order>>();
    check.operator()<gptq::scheme<3, gptq::group_size<32>, gptq::searched_by_loss<gptq::asymmetric>>>();
}

TEST_CASE("the report says what was chosen, which every order takes alike") {
    const setting s(36);
    std::vector<float> diagonal(setting::K);
    for (std::size_t k = 0; k < setting::K; ++k) diagonal[k] = s.h.upper()(k, k);
    const gptq::quantize_options automatic{.choose_damping = true};
    const auto check = [&]<class Order>() {
        const auto f = gptq::factorize<gptq::scheme<4, gptq::group_size<16>, gptq::symmetric, Order>>(s.h, automatic);
        CHECK(f.damp_percent == automatic_damping(diagonal));
    };
    check.operator()<gptq::natural_order>();
    check.operator()<gptq::act_order>();
    check.operator()<gptq::group_aware_order>();
}
