// What the solver checks of all that it is given: options, factors, orders, group policies, grids; and that what they
// throw reaches the caller.
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

#include <gptq/gptq.hpp>
#include <gptq/reference_backend.hpp>
#include <gptq/testing/check_policies.hpp>

#include "support/catch.hpp"
#include "support/message.hpp"
#include "support/random_layer.hpp"

namespace {

using gptq_test::mentions;
using gptq_test::message_of;

template <class Order, class Group = gptq::group_size<16>>
using scheme_of = gptq::scheme<4, Group, gptq::symmetric, Order>;
using w4 = scheme_of<gptq::natural_order>;
using any_group = scheme_of<gptq::natural_order, gptq::group_size<gptq::dynamic>>;

struct setting {
    gptq_test::random_layer layer = gptq_test::make_layer(40, 48, 120, 3);
    gptq::hessian<float> h{48};
    setting() { h.add(layer.X.view()); }
    auto W() const { return layer.W.view(); }
};

/// The message of an option_error; empty where there is none.
template <class Call>
std::string refusal(const Call& call) {
    try {
        call();
    } catch (const gptq::option_error& e) {
        return e.what();
    }
    return "";
}

// ------------------------------------------------------------------------------------------------------------- orders

struct order_base {
    static constexpr bool groups_follow_order = false;
    static constexpr bool static_groups = true;
};
struct duplicates : order_base {
    gptq::column_order operator()(std::span<const float> diag, std::size_t) const {
        auto order = gptq::natural_order{}(diag, 1);
        if (order.size() > 5) order[5] = 4;
        return order;
    }
};
struct leaves_range : order_base {
    gptq::column_order operator()(std::span<const float> diag, std::size_t) const {
        auto order = gptq::natural_order{}(diag, 1);
        order.back() = order.size();
        return order;
    }
};
struct is_short : order_base {
    gptq::column_order operator()(std::span<const float> diag, std::size_t) const {
        return gptq::natural_order{}(diag.subspan(1), 1);
    }
};
struct tears_groups : gptq::act_order {
    static constexpr bool groups_follow_order = false;
};
/// With state: the columns from `first` on come first.
struct rotated : order_base {
    std::size_t first = 0;
    gptq::column_order operator()(std::span<const float> diag, std::size_t) const {
        gptq::column_order order(diag.size());
        for (std::size_t p = 0; p < order.size(); ++p) order[p] = (first + p) % order.size();
        return order;
    }
};

template <class Order>
std::string broken_order() {
    const setting s;
    std::string what;
    try {
        gptq::quantize<scheme_of<Order>>(s.W(), s.h);
    } catch (const gptq::concept_error& e) {
        what = e.what();
    }
    const auto found = gptq::testing::check_order<Order>();
    CHECK(found.size() == 1);
    CHECK((found.empty() || found.front().substr(0, 16) == what.substr(0, 16)));
    return what;
}

// ------------------------------------------------------------------------------------------------------ groups, grids

struct no_features {
    static std::size_t features(std::size_t, int) { return 0; }
};
struct too_many_features {
    static std::size_t features(std::size_t in_features, int) { return 2 * in_features; }
};
struct thirds {
    static std::size_t features(std::size_t in_features, int) { return in_features / 3 + 1; }
};

/// A symmetric grid whose range is clipped: it has state.
struct clipped : gptq::symmetric {
    float keep = 1.0f;
    template <int Bits>
    gptq::grid_params fit(std::span<const float> w) const {
        const gptq::grid_params p = gptq::symmetric::fit<Bits>(w);
        return {storable(p.scale * keep), p.zero};
    }
};

struct nan_scale : gptq::symmetric {
    template <int Bits>
    gptq::grid_params fit(std::span<const float>) const {
        return {std::numeric_limits<float>::quiet_NaN(), 8};
    }
};

/// Throws for the group that holds a large weight. As it is affine, the CPU's kernels round; or the plain loops do.
template <bool Affine>
struct throws_in_fit : gptq::symmetric {
    static constexpr bool affine = Affine;
    template <int Bits>
    gptq::grid_params fit(std::span<const float> w) const {
        for (const float x : w)
            if (x > 500.0f) throw std::domain_error("a large weight");
        return gptq::symmetric::fit<Bits>(w);
    }
};
struct throws_in_encode : gptq::symmetric {
    static constexpr bool affine = false;
    template <int Bits>
    std::uint8_t encode(float x, gptq::grid_params p) const {
        if (x > 500.0f) throw std::domain_error("a large weight");
        return gptq::symmetric::encode<Bits>(x, p);
    }
};

/// A layer large enough for threads, a large weight in a row that is none of the first.
struct large_setting {
    gptq_test::random_layer layer = gptq_test::make_layer(512, 64, 160, 5);
    gptq::hessian<float> h{64};
    large_setting() {
        h.add(layer.X.view());
        layer.W(300, 20) = 1000.0f;
    }
};

template <class Grid, class Order = gptq::natural_order>
void check_propagates(const large_setting& s, const gptq::quantize_options& options) {
    using S = gptq::scheme<4, gptq::group_size<gptq::dynamic>, Grid, Order>;
    CHECK_THROWS_AS(gptq::quantize<S>(s.layer.W.view(), s.h, options), std::domain_error);
    CHECK_THROWS_AS(gptq::quantize<S>(s.layer.W.view(), s.h, options, gptq::reference_backend{}), std::domain_error);
}

struct throwing_observer {
    void on_columns(std::size_t, std::size_t) { throw std::domain_error("enough"); }
};

/// A path with state that counts what it factors.
struct counting_path : gptq::inverse_free_path {
    int* count = nullptr;
    template <gptq::Backend B>
    bool factor(const B& backend, gptq::matrix_view<float> H) const {
        ++*count;
        return gptq::inverse_free_path::factor(backend, H);
    }
};

/// A backend that counts its products.
struct counting_backend : gptq::reference_backend {
    int* products = nullptr;
    void multiply(gptq::matrix_view<float> C, gptq::matrix_view<const float> A, gptq::matrix_view<const float> B,
                  float alpha, float beta) const {
        ++*products;
        gptq::reference_backend::multiply(C, A, B, alpha, beta);
    }
};

}  // namespace

TEST_CASE("options out of range are refused by name") {
    const setting s;
    const auto refused = [&](const gptq::quantize_options& options) {
        return refusal([&] { gptq::quantize<w4>(s.W(), s.h, options); });
    };
    CHECK(mentions(refused({.damp_percent = 1.0}), "damp_percent"));
    CHECK(mentions(refused({.damp_percent = 5.0}), "damp_percent"));
    CHECK(mentions(refused({.damp_percent = -0.01}), "damp_percent"));
    CHECK(mentions(refused({.damp_percent = std::nan("")}), "damp_percent"));
    CHECK(mentions(refused({.damp_percent = 0.5, .choose_damping = true}), "choose_damping"));
    CHECK(mentions(refused({.damp_growth = 1.0}), "damp_growth"));
    CHECK(mentions(refused({.block_size = 0}), "block_size"));
    CHECK(mentions(refused({.group_size = 32}), "group_size"));
    CHECK(mentions(refused({.refine = {.rounds = -1}}), "refine.rounds"));
    CHECK(mentions(refused({.candidates = 0}), "candidates"));
    CHECK(mentions(refused({.candidates = 17}), "candidates"));
    CHECK(refused({.group_size = 16}) == "");
    const auto size_refused = [&](int size) {
        return refusal([&] { gptq::quantize<any_group>(s.W(), s.h, {.group_size = size}); });
    };
    CHECK(mentions(size_refused(100000), "48 inputs"));
    CHECK(mentions(size_refused(0), "group_size"));
    CHECK(mentions(refusal([&] { gptq::quantize<any_group>(s.W(), s.h); }), "set the option group_size"));
    CHECK(size_refused(48) == "");
    CHECK(size_refused(gptq::per_channel) == "");
}

TEST_CASE("options that rounding to nearest does not use are refused") {
    const setting s;
    const auto refused = [&](const gptq::quantize_options& options) {
        return refusal([&] { gptq::round_to_nearest<w4>(s.W(), options); });
    };
    CHECK(mentions(refused({.refine = {.rounds = 1}}), "refine"));
    CHECK(mentions(refused({.candidates = 4}), "candidates"));
    CHECK(mentions(refused({.damp_percent = 0.05}), "damp_percent"));
    CHECK(mentions(refused({.choose_damping = true}), "choose_damping"));
    CHECK(mentions(refused({.group_size = 32}), "group_size"));
}

TEST_CASE("a factor serves the scheme and the options that it was made for, and no others") {
    const setting s;
    const auto f = gptq::factorize<w4>(s.h, {.damp_percent = 0.02});
    const auto refused = [&]<class S>(const gptq::quantize_options& options) {
        return refusal([&] { gptq::quantize<S>(s.W(), f, options); });
    };
    CHECK(refused.operator()<w4>({}) == "");
    CHECK(refused.operator()<w4>({.damp_percent = 0.02, .group_size = 16, .candidates = 2}) == "");
    CHECK(mentions(refused.operator()<w4>({.damp_percent = 0.05}), "damp_percent"));
    CHECK(mentions(refused.operator()<w4>({.choose_damping = true}), "damp_percent"));
    CHECK(mentions(refused.operator()<scheme_of<gptq::natural_order, gptq::group_size<32>>>({}), "groups of 16"));
    CHECK(mentions(refused.operator()<any_group>({.group_size = 32}), "groups of 16"));
    CHECK(refused.operator()<any_group>({}) == "");
    CHECK(mentions(refused.operator()<scheme_of<gptq::act_order>>({}), "natural_order"));
    CHECK(mentions(refused.operator()<scheme_of<gptq::group_aware_order>>({}), "group_aware_order"));
    // the same order with other bits and another grid is no other factor
    CHECK(refused.operator()<gptq::scheme<3, gptq::group_size<16>, gptq::asymmetric>>({}) == "");
}

TEST_CASE("an order that is none is refused before it is used") {
    CHECK(mentions(broken_order<duplicates>(), "order[5] is 4, which came before"));
    CHECK(mentions(broken_order<leaves_range>(), "order[47] is 48"));
    CHECK(mentions(broken_order<is_short>(), "47 columns"));
    CHECK(mentions(broken_order<tears_groups>(), "neighbours"));
    CHECK(gptq::testing::check_order<gptq::natural_order>().empty());
    CHECK(gptq::testing::check_order<gptq::act_order>().empty());
    CHECK(gptq::testing::check_order<gptq::act_order_static>().empty());
    CHECK(gptq::testing::check_order<gptq::group_aware_order>().empty());
}

TEST_CASE("a group policy that breaks its promise is refused") {
    const setting s;
    CHECK_THROWS_AS((gptq::quantize<scheme_of<gptq::natural_order, no_features>>(s.W(), s.h)), gptq::concept_error);
    CHECK_THROWS_AS((gptq::quantize<scheme_of<gptq::natural_order, too_many_features>>(s.W(), s.h)),
                    gptq::concept_error);
    CHECK_THROWS_AS((gptq::round_to_nearest<scheme_of<gptq::natural_order, no_features>>(s.W())), gptq::concept_error);
    CHECK(gptq::testing::check_group_policy<no_features>().size() == 1);
    CHECK(gptq::testing::check_group_policy<too_many_features>().size() == 1);
    CHECK(gptq::testing::check_group_policy<thirds>().empty());
    CHECK(gptq::testing::check_group_policy<gptq::group_size<gptq::dynamic>>().empty());
    CHECK(gptq::testing::check_group_policy<gptq::group_size<32>>().empty());
    CHECK(gptq::quantize<scheme_of<gptq::natural_order, thirds>>(s.W(), s.h).scales.shape()[1] == 3);
}

TEST_CASE("a grid whose scale is no number is refused") {
    const setting s;
    using bad = gptq::scheme<4, gptq::group_size<16>, nan_scale>;
    CHECK(mentions(message_of([&] { gptq::quantize<bad>(s.W(), s.h); }), "QuantGrid 1"));
    CHECK_THROWS_AS(gptq::quantize<bad>(s.W(), s.h), gptq::concept_error);
    CHECK_THROWS_AS(gptq::round_to_nearest<bad>(s.W()), gptq::concept_error);
}

TEST_CASE("what a grid throws reaches the caller, from every path and thread") {
    const large_setting s;
    for (const int group_size : {16, gptq::per_channel})
        for (const std::size_t candidates : {1u, 3u}) {
            const gptq::quantize_options options{.block_size = 32, .group_size = group_size, .candidates = candidates};
            check_propagates<throws_in_fit<true>>(s, options);
            check_propagates<throws_in_fit<false>>(s, options);
            check_propagates<throws_in_fit<true>, gptq::act_order_static>(s, options);
            check_propagates<throws_in_encode>(s, options);
        }
    using S = gptq::scheme<4, gptq::group_size<16>, throws_in_encode>;
    CHECK_THROWS_AS(gptq::round_to_nearest<S>(s.layer.W.view()), std::domain_error);
    CHECK_THROWS_AS(gptq::quantize<S>(s.layer.W.view(), s.h, {.refine = {.rounds = 1}}), std::domain_error);
    CHECK_THROWS_AS(gptq::quantize<w4>(s.layer.W.view(), gptq::factorize<w4>(s.h), {}, throwing_observer{}),
                    std::domain_error);
}

TEST_CASE("grids, orders and paths may have state") {
    const setting s;
    const gptq::cpu_backend backend;
    using S = gptq::scheme<4, gptq::group_size<16>, clipped, rotated>;
    int factored = 0;
    const counting_path path{{}, &factored};
    const clipped grid{{}, 0.8f};
    const rotated order{{}, 7};
    const auto q = gptq::quantize<S>(s.W(), s.h, {}, backend, path, gptq::no_observer{}, grid, order);
    CHECK(factored == 1);
    const auto f = gptq::factorize<S>(s.h, {}, backend, path, order);
    CHECK(factored == 2);
    CHECK(f.order[0] == 7);
    CHECK((gptq::quantize<S>(s.W(), f, {}, gptq::no_observer{}, grid).codes == q.codes));
    const auto whole = gptq::quantize<S>(s.W(), f);
    const auto rounded = gptq::round_to_nearest<S>(s.W(), {}, backend, grid);
    for (std::size_t n = 0; n < 40; ++n)
        for (std::size_t g = 0; g < 3; ++g) {
            CHECK(q.scales(n, g) == gptq::symmetric::storable(0.8f * whole.scales(n, g)));
            CHECK(rounded.scales(n, g) == q.scales(n, g));
        }
}

TEST_CASE("a layer is quantized on the backend of its Hessian unless another is named") {
    const setting s;
    int products = 0;
    const counting_backend mine{{}, &products};
    gptq::basic_hessian<counting_backend> h(48, mine);
    h.add(s.layer.X.view());
    const auto q = gptq::quantize<w4>(s.W(), h, {.block_size = 8});
    CHECK(products > 0);
    CHECK(gptq::factorize<w4>(h).backend.products == &products);
    products = 0;
    CHECK((gptq::quantize<w4>(s.W(), h, {.block_size = 8}, gptq::reference_backend{}).codes == q.codes));
    CHECK(products == 0);
}

TEST_CASE("fewer tokens than inputs: never worse than rounding by the same Hessian, and better by other inputs") {
    constexpr std::size_t K = 64, fresh = 2000;
    const auto layer = gptq_test::make_layer(24, K, fresh + K, 7);
    gptq::hessian<float> other(K);
    other.add(layer.X.view().block(K, fresh, 0, K));
    const auto W = layer.W.view();
    const auto rounded = gptq::round_to_nearest<w4>(W);
    for (const std::size_t tokens : {1u, 2u, 5u, 16u, 40u, 63u}) {
        gptq::hessian<float> h(K);
        h.add(layer.X.view().block(0, tokens, 0, K));
        const auto q = gptq::quantize<w4>(W, h);
        CAPTURE(tokens);
        CHECK(q.report.shrinkage == Approx(0.5 * K / (K + static_cast<double>(tokens))));
        CHECK(gptq::layer_error(W, q, h) <= gptq::layer_error(W, rounded, h));
        // the same without a word about the tokens: H as it was measured
        const auto f = gptq::factor_hessian<gptq::natural_order>(gptq::cpu_backend{}, h.upper(), 16);
        if (tokens >= 5) CHECK(gptq::layer_error(W, q, other) < gptq::layer_error(W, gptq::quantize<w4>(W, f), other));
    }
    gptq::hessian<float> enough(K);
    enough.add(layer.X.view().block(0, K, 0, K));
    CHECK(gptq::quantize<w4>(W, enough).report.shrinkage == 0.0);
}

TEST_CASE("what the loop leaves is given up where rounding to nearest is better") {
    // H as measured knows the first input only, which the loop, that sees the others, pays with
    gptq::matrix<float> H(16, 16), W(3, 16);
    for (std::size_t i = 0; i < 16; ++i)
        for (std::size_t j = i; j < 16; ++j) H(i, j) = i == j ? 1.0f : 0.9f;
    for (std::size_t i = 0; i < 48; ++i) W.data()[i] = std::sin(static_cast<float>(i));
    auto f = gptq::factor_hessian<gptq::natural_order>(gptq::reference_backend{}, H.view(), 16, {}, {}, {}, 2);
    REQUIRE(f.shrinkage > 0.0);
    for (std::size_t i = 0; i < 16; ++i)
        for (std::size_t j = i; j < 16; ++j) (*f.measured)(i, j) = i == j ? 1.0f : 0.0f;  // rounding is best
    const auto q = gptq::quantize<w4>(W.view(), f);
    CHECK(q.report.rounded_to_nearest);
    CHECK((q.codes == gptq::round_to_nearest<w4>(W.view()).codes));
}
