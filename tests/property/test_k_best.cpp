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
    template <int Bits, class Grid>
    void quantize_block(const gptq::block_to_quantize<Bits, Grid>& block) const {
        if (block.candidates == 1)
            for_each_row(block.T.rows, gptq::k_best_row<Bits, gptq::block_to_quantize<Bits, Grid>>{block});
        else
            gptq::quantize_rows(*this, block);
    }
};

constexpr std::size_t columns = 5;  // of the layers whose best codes are known
using row = std::array<double, columns>;

struct setting {
    gptq_test::random_layer layer;
    gptq::hessian<float> h;
    double damp;

    explicit setting(unsigned seed, std::size_t out = N, std::size_t in = K)
        : layer(gptq_test::make_layer(out, in, T, seed)), h(in) {
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
    double row_loss(std::size_t n, const row& q) const {
        double total = 0.0;
        for (std::size_t i = 0; i < q.size(); ++i)
            for (std::size_t j = 0; j < q.size(); ++j) {
                const double H = double{h.upper()(std::min(i, j), std::max(i, j))} + (i == j ? damp : 0.0);
                total += (double{layer.W(n, i)} - q[i]) * H * (double{layer.W(n, j)} - q[j]);
            }
        return total;
    }
};

/// All codes that candidates can propose for a row of 5 columns in natural order, from H = A A', A upper triangular:
/// with D = W - Q, the errors are D A.
class proposals {
 public:
    explicit proposals(const setting& s) : s_(s) {
        for (std::size_t j = columns; j-- > 0;)
            for (std::size_t i = j + 1; i-- > 0;) {
                double rest = double{s.h.upper()(i, j)} + (i == j ? s.damp : 0.0);
                for (std::size_t k = j + 1; k < columns; ++k) rest -= A_[i][k] * A_[j][k];
                A_[i][j] = i == j ? std::sqrt(rest) : rest / A_[j][j];
            }
    }

    double least_loss(std::size_t n, gptq::grid_params params) const {
        row D{};
        return least_loss(n, params, D, 0);
    }

 private:
    /// What columns [k, 5) add to the loss at least, the differences D before them given.
    double least_loss(std::size_t n, gptq::grid_params params, row& D, std::size_t k) const {
        if (k == columns) return 0.0;
        double before = 0.0;
        for (std::size_t j = 0; j < k; ++j) before += D[j] * A_[j][k];
        const double w = double{s_.layer.W(n, k)} + before / A_[k][k];
        std::array<double, 4> values{};
        for (unsigned code = 0; code < 4; ++code) values[code] = double{params.scale} * (double(code) - params.zero);
        std::sort(values.begin(), values.end(),
                  [w](double a, double b) { return std::fabs(w - a) < std::fabs(w - b); });
        double least = std::numeric_limits<double>::infinity();
        for (const double q : {values[0], values[1]}) {
            D[k] = double{s_.layer.W(n, k)} - q;
            const double error = before + D[k] * A_[k][k];
            least = std::min(least, error * error + least_loss(n, params, D, k + 1));
        }
        return least;
    }

    const setting& s_;
    std::array<row, columns> A_{};
};

/// How many rows of a layer of 5 columns and one group have the best codes of 2 bits for their grid.
template <class Q>
std::size_t rows_at_optimum(const setting& s, const Q& q) {
    std::size_t rows = 0;
    for (std::size_t n = 0; n < q.codes.shape(0); ++n) {
        const auto value = [&](unsigned code) { return double{q.scales(n, 0)} * (double(code) - q.zeros(n, 0)); };
        row own{}, other{};
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
            CHECK(many < 0.98 * nearest);
            CHECK(many < 1.01 * few);
            CHECK(refined < many);
        }
    });
}

// 16 candidates of two codes a column lose none before the last of 5 columns, and there only those that are no better.
TEST_CASE("where the candidates hold all that is proposed, they hold the best of it") {
    const setting s(24, 200, columns);
    using S = gptq::scheme<2, gptq::group_size<gptq::per_channel>, gptq::asymmetric>;
    const auto q = s.quantize<S>(options_for(gptq::per_channel, gptq::max_candidates));
    const proposals all(s);
    for (std::size_t n = 0; n < 200; ++n) {
        const gptq::grid_params params{q.scales(n, 0), q.zeros(n, 0)};
        row values{};
        for (std::size_t k = 0; k < columns; ++k) values[k] = S::grid::decode<2>(q.codes(n, k), params);
        REQUIRE(s.row_loss(n, values) == Approx(all.least_loss(n, params)).epsilon(1e-4));
    }
}

TEST_CASE("what the candidates find is mostly the best of all codes, and more often than what rounding finds") {
    const setting s(24, 200, columns);
    const auto check = [&]<class S>() {
        const auto nearest = rows_at_optimum(s, s.quantize<S>(options_for(gptq::per_channel, 1)));
        const auto best = rows_at_optimum(s, s.quantize<S>(options_for(gptq::per_channel, gptq::max_candidates)));
        CAPTURE(nearest, best);
        CHECK(best >= 160);
        CHECK(best > nearest + 30);
    };
    using per_channel = gptq::group_size<gptq::per_channel>;
    check.template operator()<gptq::scheme<2, per_channel, gptq::asymmetric>>();
    check.template operator()<gptq::scheme<2, per_channel, gptq::searched<gptq::symmetric>, gptq::act_order_static>>();
}

TEST_CASE("numbers of candidates that cannot be are refused") {
    const setting s(25);
    using S = gptq::scheme<2, gptq::group_size<24>, gptq::symmetric>;
    CHECK_THROWS_AS(s.quantize<S>({.candidates = 0}), gptq::option_error);
    CHECK_THROWS_AS(s.quantize<S>({.candidates = gptq::max_candidates + 1}), gptq::option_error);
    const auto f = gptq::factorize<S>(s.h);
    CHECK_THROWS_AS(gptq::quantize<S>(s.layer.W.view(), f, {.candidates = 0}), gptq::option_error);
}
