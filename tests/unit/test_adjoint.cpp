// Gradients: of every operation against central differences of plain loops in double, of whole models against PyTorch's
// (golden/make_gradients.py).
#include <gptq/model/reverse_pass.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <random>
#include <string>
#include <vector>

#include <gptq/error.hpp>
#include <gptq/io/model_folder.hpp>
#include <gptq/model/block.hpp>
#include <gptq/model/block_reverse.hpp>
#include <gptq/model/decoder.hpp>

#include "support/catch.hpp"
#include "support/golden_models.hpp"
#include "support/shared.hpp"

namespace io = gptq::io;
namespace model = gptq::model;
using gptq::matrix;
using gptq::matrix_view;
using model::attention_shape;
using model::mlp_activation;

namespace {

using numbers = std::vector<double>;
const model::cpu_model_backend backend(model::quantized_form::dense);

matrix<float> random_matrix(std::size_t rows, std::size_t cols, float scale = 1.0f) {
    static std::mt19937 random(5);
    std::normal_distribution<float> normal(0.0f, scale);
    matrix<float> m(rows, cols);
    for (std::size_t i = 0; i < rows * cols; ++i) m.data()[i] = normal(random);
    return m;
}

numbers in_double(const matrix<float>& m) { return {m.data(), m.data() + m.rows() * m.cols()}; }

/// Of L, by each element of x.
numbers central_differences(const std::function<double(const numbers&)>& L, numbers x) {
    constexpr double h = 1e-5;
    numbers gradient(x.size());
    for (std::size_t i = 0; i < x.size(); ++i) {
        const double at = x[i];
        x[i] = at + h;
        const double above = L(x);
        x[i] = at - h;
        gradient[i] = (above - L(x)) / (2.0 * h);
        x[i] = at;
    }
    return gradient;
}

/// `computed` [rows, cols] is the gradient of L at x.
void check_gradient(const matrix<float>& computed, const std::function<double(const numbers&)>& L,
                    const matrix<float>& x) {
    CHECK(gptq_test::relative_difference({computed.data(), computed.rows() * computed.cols()},
                                         central_differences(L, in_double(x))) < 1e-5);
}

double weighted(const numbers& y, const matrix<float>& weights) {
    double sum = 0.0;
    for (std::size_t i = 0; i < y.size(); ++i) sum += y[i] * double{weights.data()[i]};
    return sum;
}

// ---- plain loops ----------------------------------------------------------------------------------------------------

numbers normalized(bool centred, double eps, const numbers& x, std::size_t features, const numbers& weight,
                   const numbers& bias) {
    numbers y(x.size());
    for (std::size_t first = 0; first < x.size(); first += features) {
        double mean = 0.0, squares = 0.0;
        for (std::size_t i = 0; i < features && centred; ++i) mean += x[first + i] / static_cast<double>(features);
        for (std::size_t i = 0; i < features; ++i) squares += std::pow(x[first + i] - mean, 2.0);
        const double root = std::sqrt(squares / static_cast<double>(features) + eps);
        for (std::size_t i = 0; i < features; ++i) y[first + i] = (x[first + i] - mean) / root * weight[i] + bias[i];
    }
    return y;
}

/// One window.
numbers attended(const attention_shape& c, const numbers& q, const numbers& k, const numbers& v) {
    const std::size_t d = c.head_dim, width = c.heads * d, kv_width = c.kv_heads * d;
    numbers out(q.size(), 0.0);
    for (std::size_t head = 0; head < c.heads; ++head)
        for (std::size_t r = 0; r < c.queries; ++r) {
            const std::size_t own = r * width + head * d, read = head / (c.heads / c.kv_heads) * d;
            const std::size_t position = c.keys - c.queries + r;
            numbers shares(position + 1, 0.0);
            double sum = 0.0;
            for (std::size_t j = 0; j <= position; ++j) {
                if (c.span != 0 && position - j >= c.span) continue;
                double score = 0.0;
                for (std::size_t i = 0; i < d; ++i) score += q[own + i] * k[j * kv_width + read + i];
                score *= double{c.scale};
                if (c.cap != 0.0f) score = double{c.cap} * std::tanh(score / double{c.cap});
                sum += shares[j] = std::exp(score);
            }
            for (std::size_t j = 0; j <= position; ++j)
                for (std::size_t i = 0; i < d; ++i) out[own + i] += shares[j] / sum * v[j * kv_width + read + i];
        }
    return out;
}

double applied(mlp_activation f, double x) {
    switch (f) {
        case mlp_activation::silu: return x / (1.0 + std::exp(-x));
        case mlp_activation::relu: return std::max(x, 0.0);
        case mlp_activation::relu_squared: return std::pow(std::max(x, 0.0), 2.0);
        case mlp_activation::gelu: return 0.5 * x * (1.0 + std::erf(x / std::sqrt(2.0)));
        case mlp_activation::gelu_tanh:
            return 0.5 * x * (1.0 + std::tanh(std::sqrt(2.0 / 3.14159265358979324) * (x + 0.044715 * x * x * x)));
    }
    return 0.0;
}

constexpr std::array all_activations = {mlp_activation::silu, mlp_activation::relu, mlp_activation::gelu,
                                        mlp_activation::gelu_tanh, mlp_activation::relu_squared};

// ---- whole models ---------------------------------------------------------------------------------------------------

struct named_gradients {
    std::map<std::string, numbers> of;

    void add(const std::string& name, std::span<const float> gradient, float factor = 1.0f) {
        numbers& sum = of[name];
        sum.resize(gradient.size());
        for (std::size_t i = 0; i < gradient.size(); ++i) sum[i] += double{factor} * double{gradient[i]};
    }
};

/// The gradients of the loss of make_gradients.py, under the names that the files have.
named_gradients gradients_of(model::decoder& decoder, const std::vector<std::int32_t>& ids, bool in_parts) {
    const model::model_config& config = decoder.config();
    std::map<const void*, std::string> names;
    for (std::size_t i = 0; i < config.blocks; ++i) {
        auto& block = decoder.blocks()[i];
        for (std::size_t s = 0; s < block.layers.size(); ++s)
            for (std::size_t m = 0; m < block.layers[s].size(); ++m)
                names[&block.layers[s][m]] = block.what.full_name(block.what.sites[s].modules[m]);
        for (const auto& norm : block.what.norms) names[&*block.norm(norm.place)] = block.what.prefix + norm.name;
    }
    if (decoder.head_layer()) names[&*decoder.head_layer()] = "lm_head";
    if (decoder.head_inputs().norm) names[&*decoder.head_inputs().norm] = config.arch.names.final_norm;

    named_gradients found;
    model::gradient_takers<model::cpu_model_backend> takers;
    takers.layer = [&](const model::linear& layer, matrix_view<const float> x, matrix_view<const float> dy) {
        matrix<float> dW(dy.cols, x.cols);
        backend.weight_gradient(dy, x, dW.view());
        found.add(names.at(&layer) + ".weight", {dW.data(), dW.rows() * dW.cols()});
    };
    takers.of_norm = [&](const gptq::model::norm_layer& norm, matrix_view<const float> sums) {
        const std::string& name = names.at(&norm);
        const float factor = name == config.arch.names.final_norm ? config.logit_scale : 1.0f;
        found.add(name + ".weight", sums.row(0), factor);
        found.add(name + ".bias", sums.row(1));
    };
    model::reverse_pass<model::cpu_model_backend> pass(decoder);
    pass.forward(ids);
    const std::size_t part = in_parts ? 7 : ids.size();
    for (std::size_t first = 0; first < ids.size(); first += part) {
        const auto logits = pass.logits(first, std::min(part, ids.size() - first));
        for (std::size_t r = 0; r < logits.rows; ++r) {
            const auto row = logits.row(r);
            if (first + r + 1 == ids.size()) {
                std::ranges::fill(row, 0.0f);
            } else {
                model::softmax(row);
                row[static_cast<std::size_t>(ids[first + r + 1])] -= 1.0f;
            }
        }
        pass.head_backward(first, logits, takers);
    }
    pass.backward(takers);
    const auto states = pass.input_gradient();
    found.add("states", {states.data, states.rows * states.cols});
    return found;
}

/// Norm, sum of g[i] cos(i), the first element and the one in the middle.
numbers summary(const numbers& g) {
    double squares = 0.0, along = 0.0;
    for (std::size_t i = 0; i < g.size(); ++i) {
        squares += g[i] * g[i];
        along += g[i] * std::cos(static_cast<double>(i));
    }
    return {std::sqrt(squares), along, g.front(), g[g.size() / 2]};
}

}  // namespace

TEST_CASE("gradients of norms are those of central differences", "[adjoint]") {
    constexpr std::size_t tokens = 3, features = 11;
    for (const auto kind : {model::norm_kind::rms, model::norm_kind::layer}) {
        model::norm_layer layer{.kind = kind, .eps = 1e-2};
        const auto x = random_matrix(tokens, features), weight = random_matrix(1, features);
        const auto bias = random_matrix(1, features), dy = random_matrix(tokens, features);
        layer.weight = gptq::make_tensor1<float>(features);
        layer.bias = gptq::make_tensor1<float>(features);
        std::copy_n(weight.data(), features, layer.weight.begin());
        std::copy_n(bias.data(), features, layer.bias.begin());
        matrix<float> dx = dy, sums(2, features);  // in place
        backend.normalize_adjoint(layer, x.view(), dx.view(), dx.view(), sums.view());
        const auto y = [&](const numbers& in, const numbers& w, const numbers& b) {
            return weighted(normalized(kind == model::norm_kind::layer, 1e-2, in, features, w, b), dy);
        };
        const numbers in = in_double(x), w = in_double(weight), b = in_double(bias);
        check_gradient(
            dx, [&](const numbers& at) { return y(at, w, b); }, x);
        matrix<float> dw(1, features), db(1, features);
        std::ranges::copy(sums.view().row(0), dw.data());
        std::ranges::copy(sums.view().row(1), db.data());
        check_gradient(
            dw, [&](const numbers& at) { return y(in, at, b); }, weight);
        check_gradient(
            db, [&](const numbers& at) { return y(in, w, at); }, bias);
    }
}

TEST_CASE("gradients of a rotation are those of central differences", "[adjoint]") {
    constexpr std::size_t tokens = 5, head_dim = 8, half = 3;  // of a head's eight features, six rotate
    const auto x = random_matrix(tokens, 2 * head_dim), dy = random_matrix(tokens, 2 * head_dim);
    const auto cosines = random_matrix(tokens, half), sines = random_matrix(tokens, half);
    for (const bool neighbours : {false, true}) {
        matrix<float> dx = dy;
        backend.rotate_adjoint(cosines.view(), sines.view(), {head_dim, neighbours}, dx.view());
        const auto L = [&](const numbers& at) {
            numbers y = at;
            for (std::size_t r = 0; r < tokens; ++r)
                for (std::size_t first = 0; first < 2 * head_dim; first += head_dim)
                    for (std::size_t i = 0; i < half; ++i) {
                        const std::size_t a = r * 2 * head_dim + first + (neighbours ? 2 * i : i);
                        const std::size_t b = neighbours ? a + 1 : a + half;
                        y[a] = at[a] * double{cosines(r, i)} - at[b] * double{sines(r, i)};
                        y[b] = at[b] * double{cosines(r, i)} + at[a] * double{sines(r, i)};
                    }
            return weighted(y, dy);
        };
        check_gradient(dx, L, x);
    }
}

TEST_CASE("gradients of attention are those of central differences", "[adjoint]") {
    // More queries than a tile of them; heads that share keys; a window; queries after earlier keys; one head alone; a
    // cap.
    const std::vector<attention_shape> shapes = {
        {.heads = 1, .kv_heads = 1, .head_dim = 2, .scale = 0.6f, .span = 0, .queries = 70, .keys = 70},
        {.heads = 4, .kv_heads = 2, .head_dim = 3, .scale = 0.9f, .span = 0, .queries = 7, .keys = 7},
        {.heads = 2, .kv_heads = 1, .head_dim = 4, .scale = 0.5f, .span = 3, .queries = 6, .keys = 9},
        {.heads = 2, .kv_heads = 1, .head_dim = 4, .scale = 0.5f, .span = 3, .queries = 6, .keys = 9, .cap = 0.7f}};
    for (const attention_shape& shape : shapes) {
        CAPTURE(shape.queries, shape.span);
        const std::size_t width = shape.heads * shape.head_dim, kv_width = shape.kv_heads * shape.head_dim;
        const auto q = random_matrix(shape.queries, width), dout = random_matrix(shape.queries, width);
        const auto k = random_matrix(shape.keys, kv_width), v = random_matrix(shape.keys, kv_width);
        matrix<float> dq(shape.queries, width), dk(shape.keys, kv_width), dv(shape.keys, kv_width);
        model::cpu_model_backend::scratch scratch;
        backend.attend_adjoint(shape, q.view(), k.view(), v.view(), dout.view(), scratch, dq.view(), dk.view(),
                               dv.view());
        const numbers q_at = in_double(q), k_at = in_double(k), v_at = in_double(v);
        check_gradient(
            dq, [&](const numbers& at) { return weighted(attended(shape, at, k_at, v_at), dout); }, q);
        check_gradient(
            dk, [&](const numbers& at) { return weighted(attended(shape, q_at, at, v_at), dout); }, k);
        check_gradient(
            dv, [&](const numbers& at) { return weighted(attended(shape, q_at, k_at, at), dout); }, v);
    }
}

TEST_CASE("windows side by side do not share gradients", "[adjoint]") {
    const attention_shape shape{.heads = 2, .kv_heads = 1, .head_dim = 4, .scale = 0.5f, .queries = 5, .keys = 5};
    const auto q = random_matrix(10, 8), k = random_matrix(10, 4), v = random_matrix(10, 4),
               dout = random_matrix(10, 8);
    model::cpu_model_backend::scratch scratch;
    matrix<float> dq(10, 8), dk(10, 4), dv(10, 4), dq_alone(5, 8), dk_alone(5, 4), dv_alone(5, 4);
    backend.attend_adjoint(shape, q.view(), k.view(), v.view(), dout.view(), scratch, dq.view(), dk.view(), dv.view());
    const auto second = [](const auto& m) { return m.view().block(5, 5, 0, m.cols()); };
    backend.attend_adjoint(shape, second(q), second(k), second(v), second(dout), scratch, dq_alone.view(),
                           dk_alone.view(), dv_alone.view());
    for (std::size_t r = 0; r < 5; ++r)
        for (std::size_t c = 0; c < 4; ++c) {
            CHECK(dq(5 + r, c) == dq_alone(r, c));
            CHECK(dk(5 + r, c) == dk_alone(r, c));
            CHECK(dv(5 + r, c) == dv_alone(r, c));
        }
}

TEST_CASE("gradients of a cap are those of central differences", "[adjoint]") {
    const auto x = random_matrix(3, 7, 2.0f), dy = random_matrix(3, 7);
    matrix<float> y = x, dx = dy;
    backend.cap(0.8f, y.view());
    backend.cap_adjoint(0.8f, y.view(), dx.view());
    const auto L = [&](const numbers& at) {
        numbers capped;
        for (const double value : at) capped.push_back(double{0.8f} * std::tanh(value / double{0.8f}));
        return weighted(capped, dy);
    };
    check_gradient(dx, L, x);
}

TEST_CASE("gradients of the functions inside an MLP are those of central differences", "[adjoint]") {
    const auto x = random_matrix(3, 7, 2.0f), y = random_matrix(3, 7), dz = random_matrix(3, 7);
    for (const mlp_activation f : all_activations) {
        CAPTURE(static_cast<int>(f));
        const auto z = [&](const numbers& a, const numbers& b) {
            numbers product(a.size());
            for (std::size_t i = 0; i < a.size(); ++i) product[i] = applied(f, a[i]) * b[i];
            return weighted(product, dz);
        };
        matrix<float> alone = dz, dx(3, 7), dy(3, 7);
        backend.activate_adjoint(f, x.view(), alone.view());
        check_gradient(
            alone, [&](const numbers& at) { return z(at, numbers(at.size(), 1.0)); }, x);
        backend.gate_adjoint(f, x.view(), y.view(), dz.view(), dx.view(), dy.view());
        check_gradient(
            dx, [&](const numbers& at) { return z(at, in_double(y)); }, x);
        check_gradient(
            dy, [&](const numbers& at) { return z(in_double(x), at); }, y);
    }
}

TEST_CASE("the divergence and its gradient are those of the definition", "[adjoint]") {
    constexpr std::size_t tokens = 3, words = 20;
    const auto reference = random_matrix(tokens, words, 2.0f), logits = random_matrix(tokens, words, 2.0f);
    const auto divergence = [&](const numbers& at) {
        double sum = 0.0;
        for (std::size_t r = 0; r < tokens; ++r) {
            double p_mass = 0.0, q_mass = 0.0;
            for (std::size_t i = 0; i < words; ++i) {
                p_mass += std::exp(double{reference(r, i)});
                q_mass += std::exp(at[r * words + i]);
            }
            for (std::size_t i = 0; i < words; ++i) {
                const double p = std::exp(double{reference(r, i)}) / p_mass, q = std::exp(at[r * words + i]) / q_mass;
                sum += p * std::log(p / q);
            }
        }
        return sum;
    };
    matrix<float> gradient = logits;
    const double found = backend.distill(reference.view(), 0.25f, gradient.view());
    CHECK(found == Approx(divergence(in_double(logits))).epsilon(1e-6));
    check_gradient(
        gradient, [&](const numbers& at) { return 0.25 * divergence(at); }, logits);
    matrix<float> same = reference;
    CHECK(backend.distill(reference.view(), 1.0f, same.view()) == Approx(0.0).margin(1e-6));
}

TEST_CASE("gradients of products are those of central differences", "[adjoint]") {
    constexpr std::size_t T = 3, K = 6, N = 4, rank = 2;
    const auto x = random_matrix(T, K), W = random_matrix(N, K), V = random_matrix(N, K);
    const auto down = random_matrix(rank, K), up = random_matrix(N, rank);
    const auto dy = random_matrix(T, N), dz = random_matrix(T, N);
    const auto as_tensor = [](const matrix<float>& m) {
        auto t = gptq::make_tensor2<float>(m.rows(), m.cols());
        std::copy_n(m.data(), t.size(), t.begin());
        return t;
    };
    model::linear with_term, plain;
    with_term.weight = as_tensor(W);
    with_term.terms.push_back({as_tensor(down), as_tensor(up)});
    plain.weight = as_tensor(V);
    const auto product = [&](const numbers& in, const numbers& weight, const matrix<float>& gradient) {
        double sum = 0.0;
        for (std::size_t t = 0; t < T; ++t)
            for (std::size_t n = 0; n < N; ++n)
                for (std::size_t k = 0; k < K; ++k) sum += in[t * K + k] * weight[n * K + k] * double{gradient(t, n)};
        return sum;
    };
    numbers with_adapter = in_double(W);
    for (std::size_t n = 0; n < N; ++n)
        for (std::size_t k = 0; k < K; ++k)
            for (std::size_t r = 0; r < rank; ++r) with_adapter[n * K + k] += double{up(n, r)} * double{down(r, k)};
    const auto both = [&](const numbers& in) { return product(in, with_adapter, dy) + product(in, in_double(V), dz); };
    matrix<float> dx = random_matrix(T, K), dW = random_matrix(N, K);  // what they hold does not count
    const std::array<model::linear_gradient<model::linear>, 2> outputs = {{{with_term, dy.view()}, {plain, dz.view()}}};
    backend.multiply_adjoint(outputs, dx.view());
    check_gradient(dx, both, x);
    backend.weight_gradient(dy.view(), x.view(), dW.view());
    check_gradient(
        dW, [&](const numbers& at) { return product(in_double(x), at, dy); }, W);
    backend.multiply_adjoint(dy.view(), model::table(as_tensor(V)), dx.view());
    check_gradient(
        dx, [&](const numbers& at) { return product(at, in_double(V), dy); }, x);
    matrix<gptq::half> halves(N, K);
    for (std::size_t i = 0; i < N * K; ++i) halves.data()[i] = gptq::to_half(V.data()[i]);
    matrix<float> by_halves(T, K), rounded(N, K);
    for (std::size_t i = 0; i < N * K; ++i) rounded.data()[i] = gptq::to_float(halves.data()[i]);
    backend.multiply_adjoint(dy.view(), model::table(std::move(halves)), by_halves.view());
    check_gradient(
        by_halves, [&](const numbers& at) { return product(at, in_double(rounded), dy); }, x);
}

TEST_CASE("the gradient of a block's input is that of central differences of the block as it runs", "[adjoint]") {
    using B = model::cpu_model_backend;
    constexpr std::size_t tokens = 9, index = 1;
    constexpr float h = 1.0f / 2048;
    const auto models = gptq_test::read_json(gptq_test::source_dir() / "tests" / "golden" / "gradients.json");
    for (const auto& [name, unused] : models.items()) {
        CAPTURE(name);
        auto decoder = model::decoder::load(io::model_folder(gptq_test::golden_model(name).folder), backend);
        model::model_config config = decoder.config();
        if (config.activation == mlp_activation::relu) config.activation = mlp_activation::gelu;  // which has no kinks
        const auto& block = decoder.blocks()[index];
        const model::rope_tables<B> ropes(backend, config, model::text_range{0, tokens});
        const auto x = random_matrix(tokens, config.hidden_size), dy = random_matrix(tokens, config.hidden_size);
        model::block_buffers<B> buffers;
        model::block_scratch<B> scratch;
        const auto L = [&](const matrix<float>& direction, float distance) {
            matrix<float> states = x;
            for (std::size_t i = 0; i < tokens * config.hidden_size; ++i)
                states.data()[i] += distance * direction.data()[i];
            model::block_run<B> run(backend, config, block, index, ropes, buffers, scratch);
            run.begin(states.view(), tokens, {});
            while (run.next()) {
            }
            return weighted(in_double(states), dy);
        };
        model::reverse_buffers<B> reverse_buffers;
        model::block_reverse<B> reverse(backend, config, block, index, ropes, reverse_buffers);
        matrix<float> states = x, dx = dy;
        reverse.recompute(states.view());
        reverse.backward(dx.view(), {});
        double size = 0.0;
        for (const double d : in_double(dx)) size += d * d;
        for (int direction = 0; direction < 4; ++direction) {
            const auto along = random_matrix(tokens, config.hidden_size);
            const double by_differences = (L(along, h) - L(along, -h)) / (2.0 * double{h});
            CHECK(weighted(in_double(dx), along) == Approx(by_differences).margin(2e-3 * std::sqrt(size)));
        }
    }
}

TEST_CASE("gradients of whole models equal those of PyTorch", "[adjoint]") {
    const auto expected = gptq_test::read_json(gptq_test::source_dir() / "tests" / "golden" / "gradients.json");
    REQUIRE(expected.size() == 36);
    for (const auto& [name, tensors] : expected.items()) {
        const gptq_test::golden_model golden(name);
        auto decoder = model::decoder::load(io::model_folder(golden.folder), backend);
        for (const bool in_parts : {false, true}) {
            const named_gradients found = gradients_of(decoder, golden.logit_ids(), in_parts);
            for (const auto& [tensor, values] : tensors.items()) {
                CAPTURE(name, tensor, in_parts);
                if (tensor.ends_with(".bias") && !found.of.contains(tensor)) continue;  // of a linear layer
                REQUIRE(found.of.contains(tensor));
                const numbers ours = summary(found.of.at(tensor));
                for (std::size_t i = 0; i < ours.size(); ++i)
                    CHECK(ours[i] ==
                          Approx(values[i].get<double>()).margin(1e-4 * values[0].get<double>()).epsilon(0.0));
            }
        }
    }
}

TEST_CASE("gradients through experts, and of layers held as codes, are refused", "[adjoint]") {
    const gptq_test::golden_model golden("mixtral");
    auto decoder = model::decoder::load(io::model_folder(golden.folder), backend);
    CHECK_THROWS_AS(model::reverse_pass<model::cpu_model_backend>(decoder), gptq::unsupported_error);
    const model::linear empty;
    const auto dy = random_matrix(2, 3);
    matrix<float> dx(2, 3);
    const model::linear_gradient<model::linear> only{empty, dy.view()};
    CHECK_THROWS_AS(backend.multiply_adjoint({&only, 1}, dx.view()), gptq::unsupported_error);
}
