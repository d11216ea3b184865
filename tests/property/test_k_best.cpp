// K-best search, held to its definition: the loop's identities stand, the loss falls, and enough candidates find the
// best codes there are.
#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>

#include <gptq/gptq.hpp>
#include <gptq/reference_backend.hpp>

#include "support/catch.hpp"
#include "support/random_layer.hpp"
#include "support/schemes.hpp"

namespace {

using gptq_test::damped_error;

constexpr std::size_t N = 12, K = 72, T = 160;
// smaller than a block, not dividing it, the block, larger than it, one that divides nothing, one group a row
constexpr int group_sizes[] = {8, 24, 32, 64, 20, gptq::per_channel};

gptq::quantize_options options_for(int group_size, std::size_t candidates, std::size_t block = 32) {
    return {.block_size = block, .group_size = group_size, .candidates = candidates};
}

/// The reference, but that it searches for the one best candidate where others round to nearest.
struct one_candidate_backend : gptq::reference_backend {
    using gptq::reference_backend::for_each_row;
    template <int Bits, class Grid>
    void for_each_row(std::size_t n, const gptq::detail::quantize_row<Bits, Grid>& loop) const {
        for_each_row(n, gptq::detail::k_best_row<Bits, gptq::detail::quantize_row<Bits, Grid>>{loop, 1});
    }
};

struct setting {
    gptq_test::random_layer layer;
    gptq::hessian<float> h;
    double damp;

    explicit setting(unsigned seed, std::size_t rows = N, std::size_t columns = K)
        : layer(gptq_test::make_layer(rows, columns, T, seed)), h(columns) {
        h.add(layer.X.view());
        damp = 0.01 * gptq_test::mean_diagonal(h);
    }
    template <class S>
    auto quantize(const gptq::quantize_options& options) const {
        return gptq::quantize<S>(layer.W.view(), h, options);
    }
    template <class Q>
    double loss(const Q& q) const {
        return damped_error(layer.W.view(), gptq::dequantize(q), h, damp);
    }
    /// Row n's part of that, with `q` in place of its own values.
    double row_loss(std::size_t n, const std::array<double, 5>& q) const {
        double total = 0.0;
        for (std::size_t i = 0; i < q.size(); ++i)
            for (std::size_t j = 0; j < q.size(); ++j) {
                const double H = double{h.upper()(std::min(i, j), std::max(i, j))} + (i == j ? damp : 0.0);
                total += (double{layer.W(n, i)} - q[i]) * H * (double{layer.W(n, j)} - q[j]);
            }
        return total;
    }
};

/// How many rows of a layer of 5 columns and one group have the best codes of 2 bits for their grid.
template <class Q>
std::size_t rows_at_optimum(const setting& s, const Q& q) {
    std::size_t rows = 0;
    for (std::size_t n = 0; n < q.codes.shape(0); ++n) {
        const auto value = [&](unsigned code) { return double{q.scales(n, 0)} * (double(code) - q.zeros(n, 0)); };
        std::array<double, 5> own{}, other{};
        for (std::size_t k = 0; k < own.size(); ++k) own[k] = value(q.codes(n, k));
        double best = std::numeric_limits<double>::infinity();
        for (unsigned all = 0; all < 1u << 10; ++all) {
            for (std::size_t k = 0; k < other.size(); ++k) other[k] = value(all >> (2 * k) & 3u);
            best = std::min(best, s.row_loss(n, other));
        }
        rows += s.row_loss(n, own) <= best * (1.0 + 1e-5) ? 1 : 0;
    }
    return rows;
}

}  // namespace

TEST_CASE("a search for one candidate finds what rounding to nearest does, bit by bit") {
    const auto layer = gptq_test::make_layer(N, K, T, 21);
    gptq::basic_hessian<gptq::reference_backend> h(K);
    h.add(layer.X.view());
    gptq_test::for_each_scheme([&]<class S>() {
        for (const int g : group_sizes) {
            CAPTURE(S::bits, g, S::order::groups_follow_order, S::order::static_groups);
            const auto plain = gptq::quantize<S>(layer.W.view(), h, options_for(g, 1), gptq::reference_backend{});
            const auto one = gptq::quantize<S>(layer.W.view(), h, options_for(g, 1), one_candidate_backend{});
            CHECK(one.codes == plain.codes);
            CHECK(one.scales == plain.scales);
            CHECK(one.zeros == plain.zeros);
            CHECK(one.report.loss == plain.report.loss);
        }
    });
}

TEST_CASE("with more candidates, too, the errors fed back sum to the trace of the damped error") {
    const setting s(22);
    gptq_test::for_each_scheme([&]<class S>() {
        for (const int g : group_sizes)
            for (const std::size_t candidates : {std::size_t{2}, std::size_t{5}, gptq::max_candidates}) {
                CAPTURE(S::bits, g, candidates, S::order::groups_follow_order, S::order::static_groups);
                const auto direct = s.quantize<S>(options_for(g, candidates));
                const auto paper = gptq::quantize<S>(s.layer.W.view(), s.h, options_for(g, candidates),
                                                     gptq::cpu_backend{}, gptq::paper_path{});
                CHECK(direct.report.loss == Approx(s.loss(direct)).epsilon(1e-4));
                CHECK(paper.report.loss == Approx(s.loss(paper)).epsilon(1e-4));
                for (const auto code : direct.codes) REQUIRE(int{code} < (1 << S::bits));
            }
    });
}

TEST_CASE("the CPU's search is the reference's") {
    const setting s(23);
    gptq_test::for_each_scheme([&]<class S>() {
        for (const int g : group_sizes) {
            CAPTURE(S::bits, g, S::order::groups_follow_order, S::order::static_groups);
            const auto got = s.quantize<S>(options_for(g, 4));
            const auto expected =
                gptq::quantize<S>(s.layer.W.view(), s.h, options_for(g, 4), gptq::reference_backend{});
            std::size_t different = 0;  // two candidates of equal loss may change places
            for (std::size_t n = 0; n < N; ++n)
                for (std::size_t k = 0; k < K; ++k) different += got.codes(n, k) != expected.codes(n, k) ? 1 : 0;
            CHECK(different <= K);
            CHECK(got.report.loss == Approx(expected.report.loss).epsilon(0.01));
        }
    });
}

TEST_CASE("more candidates leave less loss, and refinement what is left of it") {
    gptq_test::for_each_scheme([&]<class S>() {
        for (const int g : {24, 64, gptq::per_channel}) {
            double nearest = 0.0, few = 0.0, many = 0.0, refined = 0.0;
            for (unsigned seed = 30; seed < 36; ++seed) {
                const setting s(seed);
                auto options = options_for(g, gptq::max_candidates);
                nearest += s.loss(s.quantize<S>(options_for(g, 1)));
                few += s.loss(s.quantize<S>(options_for(g, 3)));
                many += s.loss(s.quantize<S>(options));
                options.refine.rounds = 1;
                refined += s.loss(s.quantize<S>(options));
            }
            CAPTURE(S::bits, g, S::order::groups_follow_order, S::order::static_groups);
            CHECK(few < nearest);
            CHECK(many < 0.97 * nearest);
            CHECK(many < 1.01 * few);
            CHECK(refined < many);
        }
    });
}

TEST_CASE("where the candidates hold all that is proposed, they hold the best codes of all") {
    // Two codes a column: 16 candidates lose none before the last of 5 columns, and there only those that are no better.
    const setting s(24, 200, 5);
    using natural = gptq::scheme<2, gptq::group_size<gptq::per_channel>, gptq::asymmetric>;
    using searched = gptq::scheme<2, gptq::group_size<gptq::per_channel>, gptq::searched_by_loss<gptq::symmetric>,
                                  gptq::act_order_static>;
    const auto check = [&]<class S>() {
        const auto nearest = rows_at_optimum(s, s.quantize<S>(options_for(gptq::per_channel, 1)));
        const auto best = rows_at_optimum(s, s.quantize<S>(options_for(gptq::per_channel, gptq::max_candidates)));
        CAPTURE(nearest, best);
        CHECK(best >= 190);  // a code that is neither nearest nor next to it can be part of the best ones, seldom
        CHECK(nearest < 160);
    };
    check.template operator()<natural>();
    check.template operator()<searched>();
}

TEST_CASE("numbers of candidates that cannot be are refused") {
    const setting s(25);
    using S = gptq::scheme<2, gptq::group_size<24>, gptq::symmetric>;
    CHECK_THROWS_AS(s.quantize<S>({.candidates = 0}), gptq::shape_error);
    CHECK_THROWS_AS(s.quantize<S>({.candidates = gptq::max_candidates + 1}), gptq::shape_error);
    const auto f = gptq::factorize<S>(s.h);
    CHECK_THROWS_AS(gptq::quantize<S>(s.layer.W.view(), f, {.candidates = 0}), gptq::shape_error);
}
