// Inputs and weights that no calibration should give, by every order and method: the codes are no worse than rounded to
// nearest by the same Hessian, and every number is finite, a scale as a half, too.
#include "support/catch.hpp"

#include <cmath>
#include <cstddef>
#include <functional>
#include <optional>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include <gptq/backends/cpu/model_backend.hpp>
#include <gptq/backends/cpu/usual.hpp>
#include <gptq/finite.hpp>
#include <gptq/half.hpp>
#include <gptq/layer_error.hpp>
#include <gptq/model/stage_solver.hpp>

namespace {

using gptq::matrix;

/// An element of a matrix, from its place and a normal number.
using element = std::function<float(std::size_t r, std::size_t c, float normal)>;

matrix<float> matrix_of(std::size_t rows, std::size_t cols, const element& make) {
    std::mt19937 random(11);
    std::normal_distribution<float> normal;
    matrix<float> m(rows, cols);
    for (std::size_t r = 0; r < rows; ++r)
        for (std::size_t c = 0; c < cols; ++c) m(r, c) = make(r, c, normal(random));
    return m;
}

struct named_matrix {
    std::string name;
    matrix<float> values;
};

/// Inputs [T, K].
std::vector<named_matrix> strange_inputs(std::size_t K) {
    const auto in = [K](std::size_t T, const element& make) { return matrix_of(T, K, make); };
    const auto scaled = [&](float by) { return in(2 * K, [by](auto, auto, float x) { return by * x; }); };
    std::vector<named_matrix> all;
    all.push_back({"ordinary", scaled(1.0f)});
    all.push_back({"huge", scaled(1e17f)});
    all.push_back({"tiny", scaled(1e-17f)});
    all.push_back({"too small for their squares", scaled(1e-30f)});
    all.push_back({"zero", scaled(0.0f)});
    all.push_back({"no tokens", in(0, [](auto, auto, float x) { return x; })});
    all.push_back({"one token", in(1, [](auto, auto, float x) { return x; })});
    all.push_back({"tokens for a part of the features", in(K / 4 + 1, [](auto, auto, float x) { return x; })});
    all.push_back(
        {"all features equal", in(2 * K, [](auto r, auto, float) { return std::sin(static_cast<float>(r)); })});
    all.push_back({"a feature that is 0", in(2 * K, [](auto, auto c, float x) { return c == 1 ? 0.0f : x; })});
    all.push_back({"a feature that is tiny", in(2 * K, [](auto, auto c, float x) { return c == 1 ? 1e-20f * x : x; })});
    all.push_back({"a feature that is huge", in(2 * K, [](auto, auto c, float x) { return c == 1 ? 1e8f * x : x; })});
    all.push_back({"features of all sizes", in(2 * K, [](auto, auto c, float x) {
                       return std::pow(10.0f, static_cast<float>(c % 16) - 8.0f) * x;
                   })});
    return all;
}

/// Weights [N, K].
std::vector<named_matrix> strange_weights(std::size_t N, std::size_t K) {
    std::vector<named_matrix> all;
    const auto scaled = [&](float by) { return matrix_of(N, K, [by](auto, auto, float x) { return by * x; }); };
    all.push_back({"ordinary", scaled(0.1f)});
    all.push_back({"zero", scaled(0.0f)});
    all.push_back({"tiny", scaled(1e-6f)});
    all.push_back({"large", scaled(1e4f)});
    all.push_back(
        {"one weight", matrix_of(N, K, [](auto r, auto c, float) { return r == 0 && c == 0 ? 3.0f : 0.0f; })});
    return all;
}

/// As a run over a model quantizes the layer.
gptq::quantized_layer solve(const gptq::quantize_settings& settings, gptq::matrix_view<const float> W,
                            const gptq::hessian<float>& H) {
    using backend = gptq::model::cpu_model_backend;
    const backend on(gptq::model::quantized_form::dense);
    gptq::model::stage_solver<backend> solver(on, gptq::io::checkpoint_format::gptq, {});
    gptq::model::stage_statistics<backend> statistics{H, {}, {}, H.samples(), false};
    if (settings.method == gptq::quantize_method::gptq)
        statistics.factor.emplace(
            gptq::model::detail::factorize_for(settings.order, H, gptq::solver_options(settings)));
    gptq::model::linear layer;
    layer.weight = gptq::make_tensor2<float>(W.rows, W.cols);
    on.replace(layer, W);
    const gptq::model::stage_plan plan{0, {{"a", "a", W.rows, W.cols}}, settings};
    auto solved = solver.solve(plan, layer, statistics);
    CHECK(std::isfinite(solved.record.error));
    CHECK(std::isfinite(solved.record.rtn_error));
    return std::move(solved.codes);
}

double error_of(const gptq::quantized_layer& q, gptq::matrix_view<const float> W, const gptq::hessian<float>& H) {
    matrix<float> D(W.rows, W.cols);
    gptq::dequantize_into(q.view(), D.view());
    for (std::size_t n = 0; n < W.rows; ++n)
        for (std::size_t k = 0; k < W.cols; ++k) D(n, k) = W(n, k) - D(n, k);
    gptq::require_finite(std::as_const(D).view(), "difference");
    return gptq::output_error(std::as_const(D).view(), H);
}

/// All orders and methods for one layer.
void check_layer(gptq::matrix_view<const float> W, const gptq::hessian<float>& H, gptq::quantize_settings settings) {
    gptq::quantize_settings plain = gptq::settings::nearest(settings.bits);
    plain.sym = settings.sym;
    plain.group_size = settings.group_size;
    const double rounded = error_of(solve(plain, W, H), W, H);
    for (std::size_t order = 0; order < gptq::order_names.size(); ++order)
        for (const bool best : {false, true})
            for (const std::optional<double> damping : {std::optional<double>(), std::optional(0.0)}) {
                settings.order = static_cast<gptq::order_kind>(order);
                settings.damp_percent = damping;
                settings.candidates = best ? 8 : 1;
                settings.refine_rounds = best ? 1 : 0;
                CAPTURE(gptq::describe(settings));
                const gptq::quantized_layer q = solve(settings, W, H);
                for (const float scale : q.scales) CHECK(gptq::to_float(gptq::to_half(scale)) == scale);
                CHECK(error_of(q, W, H) <= rounded);
            }
}

void check_all(std::size_t N, std::size_t K, const std::vector<int>& bits) {
    for (const named_matrix& X : strange_inputs(K)) {
        gptq::hessian<float> H(K);
        H.add(X.values.view());
        for (const named_matrix& W : strange_weights(N, K))
            for (const int b : bits)
                for (const bool sym : {true, false}) {
                    CAPTURE(N, K, X.name, W.name);
                    gptq::quantize_settings settings = gptq::settings::recommended(b);
                    settings.group_size = K < 8 ? gptq::per_channel : 8;
                    settings.sym = sym;
                    check_layer(W.values.view(), H, settings);
                }
    }
}

}  // namespace

TEST_CASE("degenerate layers are no worse than rounded to nearest, and finite") { check_all(3, 16, {2, 4}); }

TEST_CASE("layers of one row, of one feature, and of both") {
    check_all(1, 16, {3});
    check_all(5, 1, {4});
    check_all(1, 1, {4});
}

TEST_CASE("larger degenerate layers in all bits", "[many]") { check_all(8, 40, {3, 8}); }
