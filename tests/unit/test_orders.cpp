// Orders and groups: permutations, where groups lie, and what happens to a short last group.
#include <algorithm>
#include <cstddef>
#include <vector>

#include <gptq/groups.hpp>
#include <gptq/orders.hpp>

#include "support/catch.hpp"

using order = std::vector<std::size_t>;

TEST_CASE("orders are what their names say") {
    const std::vector<float> diag = {1, 5, 2, 5, 9, 3, 4};
    CHECK(gptq::natural_order{}(diag, 3) == order{0, 1, 2, 3, 4, 5, 6});
    CHECK(gptq::act_order{}(diag, 3) == order{4, 1, 3, 6, 5, 2, 0});  // equal diagonals keep their order
    CHECK(gptq::act_order_static{}(diag, 3) == order{4, 1, 3, 6, 5, 2, 0});
    // groups {0,1,2} with maximum 5 and {3,4,5} with 9; the short group {6} stays last
    CHECK(gptq::group_aware_order{}(diag, 3) == order{4, 3, 5, 1, 2, 0, 6});
    CHECK(gptq::group_aware_order{}(diag, 7) == order{4, 1, 3, 6, 5, 2, 0});  // one group: act-order
}

TEST_CASE("group-aware reordering keeps groups together, whatever the sizes") {
    std::vector<float> diag(50);
    for (std::size_t i = 0; i < diag.size(); ++i) diag[i] = static_cast<float>((i * 37) % 23);
    for (const std::size_t g : {1u, 4u, 7u, 16u, 50u}) {
        auto p = gptq::group_aware_order{}(diag, g);
        for (std::size_t i = 0; i < p.size(); ++i) CHECK(p[i] / g == p[i / g * g] / g);
        std::sort(p.begin(), p.end());
        CHECK(p == gptq::natural_order{}(diag, g));
    }
}

TEST_CASE("group sizes: fixed, one a row, given at run time") {
    CHECK(gptq::group_size<128>::features(4096) == 128);
    CHECK(gptq::group_size<128>::features(64) == 64);
    CHECK(gptq::group_size<gptq::per_channel>::features(576) == 576);
    CHECK(gptq::group_size<gptq::dynamic>::features(576, 64) == 64);
    CHECK(gptq::group_size<gptq::dynamic>::features(576, gptq::per_channel) == 576);
    CHECK_THROWS_AS(gptq::group_size<gptq::dynamic>::features(576), gptq::option_error);
    CHECK_THROWS_AS(gptq::group_size<gptq::dynamic>::features(576, 0), gptq::option_error);
    CHECK(gptq::group_count(576, 128) == 5);
}
