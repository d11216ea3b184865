// Which tokens go to which experts, beside hand-made cases and plain loops.
#include <gptq/model/routing.hpp>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "support/catch.hpp"

using namespace gptq::model;
using rows = std::vector<std::int32_t>;

TEST_CASE("each token goes to the experts of its largest logits, with their softmax as shares", "[routing]") {
    const std::vector<float> logits{0.0f,  2.0f,  1.0f,   // token 0: experts 1 and 2
                                    -1.0f, -2.0f, 3.0f,   // token 1: experts 2 and 0
                                    0.5f,  0.5f,  0.5f};  // token 2: the first two of equal ones
    const gptq::matrix_view<const float> view(logits.data(), 3, 3);
    for (const bool renormalizes : {false, true}) {
        const auto routed = route(view, 2, renormalizes);
        REQUIRE(routed.size() == 3);
        CHECK(routed[0].rows == rows{1, 2});
        CHECK(routed[1].rows == rows{0, 2});
        CHECK(routed[2].rows == rows{0, 1});
        // Token 0 by hand: e^2 and e^1 of all three, or of each other.
        const double all = (renormalizes ? 0.0 : 1.0) + std::exp(2.0) + std::exp(1.0);
        CHECK(routed[1].shares[0] == Approx(std::exp(2.0) / all));
        CHECK(routed[2].shares[0] == Approx(std::exp(1.0) / all));
        CHECK(routed[0].shares[1] == Approx(renormalizes ? 1.0 / 2.0 : 1.0 / 3.0));
    }
}

TEST_CASE("an expert that no token goes to has none, and one expert of all takes every token", "[routing]") {
    const std::vector<float> logits{5.0f, -1.0f, 4.0f, -2.0f};
    const auto one = route({logits.data(), 2, 2}, 1, true);
    CHECK(one[0].rows == rows{0, 1});
    CHECK(one[0].shares == std::vector<float>{1.0f, 1.0f});
    CHECK(one[1].rows.empty());
    const auto both = route({logits.data(), 2, 2}, 2, false);
    for (std::size_t t = 0; t < 2; ++t) CHECK(both[0].shares[t] + both[1].shares[t] == Approx(1.0));
}

TEST_CASE("the shared expert takes all tokens, by the sigmoid of its gates", "[routing]") {
    CHECK(all_tokens(3, {}).rows == rows{0, 1, 2});
    CHECK(all_tokens(3, {}).shares == std::vector<float>(3, 1.0f));
    const std::vector<float> gates{0.0f, 1.5f};
    const auto gated = all_tokens(2, gates);
    CHECK(gated.shares[0] == Approx(0.5));
    CHECK(gated.shares[1] == Approx(1.0 / (1.0 + std::exp(-1.5))));
}
