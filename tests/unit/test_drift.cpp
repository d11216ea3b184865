// The correction for drifted inputs, against least squares done the long way.
#include <cmath>
#include <cstddef>
#include <optional>
#include <random>
#include <utility>
#include <vector>

#include <gptq/backends/cpu/model_backend.hpp>
#include <gptq/drift.hpp>
#include <gptq/gptq.hpp>
#include <gptq/model/stage_statistics.hpp>

#include "support/catch.hpp"
#include "support/message.hpp"
#include "support/random_layer.hpp"

namespace {

using gptq::matrix;
using gptq::matrix_view;
using S = gptq::scheme<4, gptq::group_size<8>, gptq::symmetric, gptq::act_order>;

constexpr std::size_t N = 5, K = 24, T = 400, cut = 300;

/// Rows [first, last) of a matrix.
matrix_view<const float> rows(const matrix<float>& m, std::size_t first, std::size_t last) {
    return m.view().block(first, last - first, 0, m.cols());
}

/// X M' for a square M.
matrix<float> transformed(const matrix<float>& X, const matrix<float>& M) {
    matrix<float> Y(X.rows(), M.rows());
    for (std::size_t t = 0; t < X.rows(); ++t)
        for (std::size_t i = 0; i < M.rows(); ++i)
            for (std::size_t j = 0; j < M.cols(); ++j) Y(t, i) += M(i, j) * X(t, j);
    return Y;
}

matrix<float> random_matrix(std::size_t rows, std::size_t cols, unsigned seed, float size) {
    std::mt19937 random(seed);
    std::normal_distribution<float> normal(0.0f, size);
    matrix<float> m(rows, cols);
    for (std::size_t r = 0; r < rows; ++r)
        for (std::size_t c = 0; c < cols; ++c) m(r, c) = normal(random);
    return m;
}

/// With any damping, also by the whole mean of the diagonal, which no caller may ask for.
auto factor_with(const gptq::hessian<float>& h, double damp_percent) {
    const std::size_t features = S::group::features(h.in_features());
    return gptq::factor_hessian<S::order>(h.backend(), h.upper(), features, {.damp_percent = damp_percent});
}

/// correct_drift with the first `cut` tokens to fit and the others held out.
double correct(matrix<float>& W, const matrix<float>& float_X, const matrix<float>& X, double damp_percent,
               const matrix<float>* float_S = nullptr, const matrix<float>* states = nullptr) {
    const gptq::quantize_options options{.damp_percent = damp_percent};
    const auto part = [&](std::size_t first, std::size_t last) {
        auto drift = states ? gptq::basic_drift<gptq::cpu_backend>(std::as_const(W).view())
                            : gptq::basic_drift<gptq::cpu_backend>(K);
        if (states)
            drift.add(rows(float_X, first, last), rows(X, first, last), rows(*float_S, first, last),
                      rows(*states, first, last));
        else
            drift.add(rows(float_X, first, last), rows(X, first, last));
        return drift;
    };
    gptq::hessian<float> fit(K), held(K);
    fit.add(rows(X, 0, cut));
    held.add(rows(X, cut, T));
    const gptq::drift_statistics<gptq::cpu_backend, gptq::inverse_free_path> statistics{
        part(0, cut), part(cut, T), gptq::factorize<S>(fit, options), held};
    return gptq::correct_drift(W.view(), statistics);
}

/// A layer whose inputs and states have drifted, for the most part by what its inputs cannot tell.
struct drifted {
    const matrix<float>& X;
    matrix<float> W;  // rows 0, every, 2 every, ... of the layer
    matrix<float> float_X, states, float_states;

    explicit drifted(const gptq_test::random_layer& layer, std::size_t every = 1)
        : X(layer.X), W((N + every - 1) / every, K), float_X(layer.X), states(T, W.rows()), float_states(states) {
        for (std::size_t n = 0; n < N; n += every)
            for (std::size_t k = 0; k < K; ++k) W(n / every, k) = layer.W(n, k);
        const matrix<float> noise = random_matrix(T, K, 7, 0.5f), told = random_matrix(N, K, 8, 0.05f);
        const matrix<float> outputs = transformed(X, told), state_noise = random_matrix(T, N, 9, 2.0f);
        for (std::size_t t = 0; t < T; ++t) {
            for (std::size_t k = 0; k < K; ++k) float_X(t, k) += noise(t, k);
            for (std::size_t n = 0; n < N; n += every) float_states(t, n / every) = outputs(t, n) + state_noise(t, n);
        }
    }
    gptq::drift_statistics<gptq::cpu_backend, gptq::inverse_free_path> statistics(double damp_percent) const {
        const auto part = [&](std::size_t first, std::size_t last) {
            gptq::basic_drift<gptq::cpu_backend> drift(W.view());
            drift.add(rows(float_X, first, last), rows(X, first, last), rows(float_states, first, last),
                      rows(states, first, last));
            return drift;
        };
        gptq::hessian<float> fit(K), held(K);
        fit.add(rows(X, 0, cut));
        held.add(rows(X, cut, T));
        return {part(0, cut), part(cut, T), factor_with(fit, damp_percent), held};
    }
};

}  // namespace

TEST_CASE("M H^-1 by two triangular solves, for both paths and any order") {
    const auto layer = gptq_test::make_layer(N, K, T, 21);
    gptq::hessian<float> h(K);
    h.add(layer.X.view());
    double mean = 0.0;
    for (std::size_t k = 0; k < K; ++k) mean += double{h.upper()(k, k)} / double(K);
    const auto check = [&](const auto& f) {
        matrix<float> M = layer.W;
        gptq::solve_by_hessian(f, M.view());
        for (std::size_t n = 0; n < N; ++n)
            for (std::size_t k = 0; k < K; ++k) {
                double product = 0.0;  // (M H_damped)(n, k), which has to be W(n, k) again
                for (std::size_t j = 0; j < K; ++j)
                    product += double{M(n, j)} *
                               (double{j <= k ? h.upper()(j, k) : h.upper()(k, j)} + (j == k ? 0.01 * mean : 0.0));
                CHECK(product == Approx(double{layer.W(n, k)}).margin(1e-4));
            }
    };
    check(gptq::factorize<S>(h));
    check(gptq::factorize<S>(h, {}, gptq::cpu_backend{}, gptq::paper_path{}));
}

TEST_CASE("a drift that is a function of the inputs is undone") {
    const auto layer = gptq_test::make_layer(N, K, T, 22);
    matrix<float> M = random_matrix(K, K, 1, 0.05f);
    for (std::size_t k = 0; k < K; ++k) M(k, k) += 1.0f;
    const matrix<float> float_X = transformed(layer.X, M);  // what the float model has: M x
    matrix<float> W = layer.W;
    CHECK(correct(W, float_X, layer.X, 1e-6) == Approx(1.0).epsilon(1e-3));
    for (std::size_t n = 0; n < N; ++n)
        for (std::size_t k = 0; k < K; ++k) {
            double expected = 0.0;  // (W M)(n, k)
            for (std::size_t j = 0; j < K; ++j) expected += double{layer.W(n, j)} * double{M(j, k)};
            CHECK(double{W(n, k)} == Approx(expected).margin(2e-3));
        }
}

TEST_CASE("states that have drifted are made up for") {
    const auto layer = gptq_test::make_layer(N, K, T, 23);
    const matrix<float> M = random_matrix(N, K, 2, 0.1f);
    const matrix<float> missing = transformed(layer.X, M);  // what the states lack: M x
    const matrix<float> states(T, N);
    matrix<float> W = layer.W;
    CHECK(correct(W, layer.X, layer.X, 1e-6, &missing, &states) == Approx(1.0).epsilon(1e-3));
    for (std::size_t n = 0; n < N; ++n)
        for (std::size_t k = 0; k < K; ++k)
            CHECK(double{W(n, k)} == Approx(double{layer.W(n, k)} + double{M(n, k)}).margin(2e-3));
}

TEST_CASE("noise that the inputs cannot tell is not fitted") {
    const auto layer = gptq_test::make_layer(N, K, T, 24);
    matrix<float> float_X = layer.X;
    const matrix<float> noise = random_matrix(T, K, 3, 1.0f);
    for (std::size_t t = 0; t < T; ++t)
        for (std::size_t k = 0; k < K; ++k) float_X(t, k) += noise(t, k);
    matrix<float> W = layer.W;
    CHECK(correct(W, float_X, layer.X, 1e-6) < 0.3);
}

TEST_CASE("without drift the weights stay as they are") {
    const auto layer = gptq_test::make_layer(N, K, T, 25);
    matrix<float> W = layer.W;
    CHECK(correct(W, layer.X, layer.X, 0.01) == 0.0);
    for (std::size_t n = 0; n < N; ++n)
        for (std::size_t k = 0; k < K; ++k) REQUIRE(W(n, k) == layer.W(n, k));
}

TEST_CASE("the share of a correction is what the tokens held out ask for, kept between none and all of it") {
    const auto layer = gptq_test::make_layer(N, K, T, 31);
    // Inputs that are 1.1 times as large in the float model ask for 1.1 W; those held out ask for a share of that step.
    struct expectation {
        float held_growth;
        double share;
    };
    for (const auto& [held_growth, share] :
         {expectation{1.05f, 0.5}, {1.1f, 1.0}, {1.3f, 1.0}, {1.0f, 0.0}, {0.8f, 0.0}}) {
        matrix<float> float_X = layer.X, W = layer.W;
        for (std::size_t t = 0; t < T; ++t)
            for (std::size_t k = 0; k < K; ++k) float_X(t, k) *= t < cut ? 1.1f : held_growth;
        CAPTURE(held_growth);
        CHECK(correct(W, float_X, layer.X, 1e-6) == Approx(share).margin(2e-3));
        for (std::size_t n = 0; n < N; ++n)
            for (std::size_t k = 0; k < K; ++k)
                REQUIRE(double{W(n, k)} == Approx(double{layer.W(n, k)} * (1.0 + 0.1 * share)).margin(2e-3));
    }
}

TEST_CASE("what the correction saves on the tokens held out, for all rows or some") {
    const auto layer = gptq_test::make_layer(N, K, T, 28);
    const drifted d(layer);
    const auto statistics = d.statistics(0.01);
    matrix<float> W = layer.W, P(N, K), D(N, K);
    statistics.held.shortfall(W.view(), P.view());
    const double alpha = gptq::correct_drift(W.view(), statistics);
    CHECK(alpha > 0.0);
    double gain = 0.0;
    for (std::size_t n = 0; n < N; ++n)
        for (std::size_t k = 0; k < K; ++k) {
            D(n, k) = W(n, k) - layer.W(n, k);
            gain += double{P(n, k)} * double{D(n, k)};
        }
    const double saved = 2.0 * gain - gptq::output_error(std::as_const(D).view(), statistics.held_hessian);
    CHECK(gptq::drift_saving(layer.W.view(), statistics) == Approx(saved).epsilon(1e-3));

    const drifted part(layer, 2);  // rows 0, 2 and 4, as a layer of their own
    CHECK(gptq::drift_saving(layer.W.view(), statistics, 2) ==
          Approx(gptq::drift_saving(part.W.view(), part.statistics(0.01))).epsilon(1e-3));
}

namespace {

/// All tokens at once.
gptq::model::stage_inputs<float> inputs_of(const gptq::model::paired_inputs<float>& all) {
    gptq::model::stage_inputs<float> x;
    x.features = all.inputs.cols;
    x.tokens = all.inputs.rows;
    x.beside_float = true;
    x.for_each = [all](const auto& look) { look(all); };
    return x;
}

}  // namespace

TEST_CASE("a stage's correction is damped as does most for the tokens held out") {
    const auto layer = gptq_test::make_layer(N, K, T, 29);
    const drifted d(layer);
    const auto factorize = [](const gptq::hessian<float>& h, double damp_percent = 0.0123) {
        return factor_with(h, damp_percent);
    };
    gptq::model::common_hessian<gptq::model::cpu_model_backend> none;
    const auto stage = gptq::model::gather_statistics(
        gptq::model::cpu_model_backend(),
        inputs_of({layer.X.view(), d.float_X.view(), d.states.view(), d.float_states.view()}), {layer.W.view()}, true,
        factorize, none);
    REQUIRE(stage.drift);
    CHECK(stage.factor->damp_percent == 0.0123);  // the solver's is another matter
    const double chosen = stage.drift->fit_factor.damp_percent;
    const double saved = gptq::drift_saving(layer.W.view(), *stage.drift);
    CHECK(chosen > 0.01);
    for (const double damping : gptq::model::detail::drift_dampings)
        CHECK(gptq::drift_saving(layer.W.view(), d.statistics(damping)) <= saved * 1.0001);
}

TEST_CASE("a drift that the inputs tell wants the least damping") {
    const auto layer = gptq_test::make_layer(N, K, T, 30);
    matrix<float> M = random_matrix(K, K, 31, 0.05f);
    for (std::size_t k = 0; k < K; ++k) M(k, k) += 1.0f;
    const matrix<float> float_X = transformed(layer.X, M);
    const auto factorize = [](const gptq::hessian<float>& h, double damp_percent = 0.0123) {
        return factor_with(h, damp_percent);
    };
    gptq::model::common_hessian<gptq::model::cpu_model_backend> none;
    const auto stage = gptq::model::gather_statistics(gptq::model::cpu_model_backend(),
                                                      inputs_of({layer.X.view(), float_X.view(), {}, {}}),
                                                      {layer.W.view()}, true, factorize, none);
    REQUIRE(stage.drift);
    CHECK(stage.drift->fit_factor.damp_percent == gptq::model::detail::drift_dampings.front());
}

TEST_CASE("tokens may be added in any number of pieces") {
    const std::size_t many = 2500;  // more than are worked on at a time
    const auto layer = gptq_test::make_layer(N, K, many, 26);
    const matrix<float> float_X = random_matrix(many, K, 4, 1.0f);
    gptq::basic_drift<gptq::cpu_backend> whole(K), pieces(K);
    whole.add(float_X.view(), layer.X.view());
    for (std::size_t first = 0; first < many; first += 700) {
        const std::size_t last = std::min(first + 700, many);
        pieces.add(rows(float_X, first, last), rows(layer.X, first, last));
    }
    CHECK(pieces.samples() == many);
    matrix<float> a(N, K), b(N, K);
    whole.shortfall(layer.W.view(), a.view());
    pieces.shortfall(layer.W.view(), b.view());
    for (std::size_t n = 0; n < N; ++n) {
        double expected = 0.0;  // column 3 of W C, from the definition
        for (std::size_t t = 0; t < many; ++t)
            for (std::size_t j = 0; j < K; ++j)
                expected += 2.0 / double(many) * double{layer.W(n, j)} *
                            (double{float_X(t, j)} - double{layer.X(t, j)}) * double{layer.X(t, 3)};
        CHECK(double{a(n, 3)} == Approx(expected).epsilon(1e-3).margin(1e-4));
        for (std::size_t k = 0; k < K; ++k) CHECK(a(n, k) == Approx(b(n, k)).epsilon(1e-3).margin(1e-4));
    }
}

TEST_CASE("what the states after a layer lack, inputs and states drifted, from the definition") {
    const std::size_t many = 2500;  // more than are worked on at a time
    const auto layer = gptq_test::make_layer(N, K, many, 32);
    const matrix<float> float_X = random_matrix(many, K, 33, 1.0f), states = random_matrix(many, N, 34, 1.0f),
                        float_states = random_matrix(many, N, 35, 1.0f);
    gptq::basic_drift<gptq::cpu_backend> drift(layer.W.view());
    for (const auto& [first, last] : {std::pair<std::size_t, std::size_t>{0, 900}, {900, many}})
        drift.add(rows(float_X, first, last), rows(layer.X, first, last), rows(float_states, first, last),
                  rows(states, first, last));
    matrix<double> expected(N, K);
    for (std::size_t t = 0; t < many; ++t)
        for (std::size_t n = 0; n < N; ++n) {
            double missing = double{float_states(t, n)} - double{states(t, n)};
            for (std::size_t j = 0; j < K; ++j)
                missing += double{layer.W(n, j)} * (double{float_X(t, j)} - double{layer.X(t, j)});
            for (std::size_t k = 0; k < K; ++k) expected(n, k) += 2.0 / double(many) * missing * double{layer.X(t, k)};
        }
    for (const std::size_t every : {std::size_t{1}, std::size_t{2}}) {
        matrix<float> P((N + every - 1) / every, K);
        drift.shortfall(matrix<float>(P.rows(), K).view(), P.view(), every);
        for (std::size_t n = 0; n < P.rows(); ++n)
            for (std::size_t k = 0; k < K; ++k)
                CHECK(double{P(n, k)} == Approx(expected(n * every, k)).epsilon(1e-3).margin(1e-4));
    }
    matrix<float> P(N - 1, K);
    CHECK_THROWS_AS(drift.shortfall(std::as_const(P).view(), P.view()), gptq::shape_error);
}

TEST_CASE("what a drift refuses") {
    const auto layer = gptq_test::make_layer(N, K, T, 27);
    gptq::basic_drift<gptq::cpu_backend> drift(K);
    CHECK_THROWS_AS(drift.add(rows(layer.X, 0, 10), rows(layer.X, 0, 11)), gptq::shape_error);
    CHECK_THROWS_AS(drift.add(layer.W.view().columns(0, 3), layer.W.view().columns(0, 3)), gptq::shape_error);
    CHECK_THROWS_AS(drift.add(layer.X.view(), layer.X.view(), layer.X.view(), layer.X.view()), gptq::shape_error);
    matrix<float> bad = layer.X;
    bad(3, 17) = NAN;
    const auto add = [&] { drift.add(bad.view(), layer.X.view()); };
    CHECK_THROWS_AS(add(), gptq::non_finite_error);
    CHECK(gptq_test::mentions(gptq_test::message_of(add), "token 3, feature 17", "float model"));
}
