// The specification of ModelBackend: plain loops, sums in double. Slow on purpose; every other model backend is held to
// it (see <gptq/testing/check_model_backend.hpp>).
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>
#include <variant>
#include <vector>

#include <gptq/host_memory.hpp>
#include <gptq/matrix_view.hpp>
#include <gptq/model/backend.hpp>
#include <gptq/reference_backend.hpp>
#include <gptq/xtensor/adapt.hpp>
#include <gptq/xtensor/surface.hpp>

namespace gptq::model {

/// Every operation as its sentence in <gptq/model/backend.hpp> reads, in host memory and in float.
class plain_model_backend {
    using floats_view = matrix_view<const float>;

 public:
    using activation = float;
    struct weights {
        matrix<float> W;                                             // [N, K]
        std::vector<float> bias;                                     // [N], or empty
        std::vector<std::pair<matrix<float>, matrix<float>>> terms;  // down [r, K] and up [N, r]
        explicit operator bool() const { return W.rows() != 0; }
    };
    using norm = norm_layer;
    using table = matrix<float>;
    struct scratch {};
    static constexpr std::size_t branch_tokens = 512, attention_tokens = 1;
    static constexpr bool beside_host = false;

    const reference_backend& solver() const { return solver_; }
    template <class T>
    matrix<T> room(std::size_t rows, std::size_t cols) const {
        return matrix<T>(rows, cols);
    }
    matrix<float> upload(floats_view host) const { return copy_of(host); }
    void read(floats_view mine, matrix_view<float> host) const { solver_.download(mine, host); }

    weights hold(stored_layer&& stored) const {
        weights held;
        if (const auto* numbers = std::get_if<model::table>(&stored.weights)) held.W = floats_of(*numbers);
        if (const auto* codes = std::get_if<quantized_layer>(&stored.weights)) held.W = floats_of(dequantize(*codes));
        held.bias.assign(stored.bias.begin(), stored.bias.end());
        for (const low_rank_term& term : stored.terms)
            held.terms.emplace_back(copy_of(view_of(term.down)), copy_of(view_of(term.up)));
        return held;
    }
    norm_layer hold(norm_layer&& stored) const { return std::move(stored); }
    matrix<float> hold(model::table&& stored) const { return floats_of(stored); }

    void multiply(floats_view x, std::span<const linear_output<weights, float>> outputs) const {
        for (const auto& [layer, y] : outputs) multiply(x, layer, y);
    }
    void multiply(floats_view x, const weights& w, matrix_view<float> y) const {
        multiply(x, w.W, y);
        for (const auto& [down, up] : w.terms) {
            matrix<float> narrow(x.rows, down.rows()), wide(y.rows, y.cols);
            multiply(x, down, narrow.view());
            multiply(narrow.view(), up, wide.view());
            add(y, wide.view());
        }
        if (!w.bias.empty()) add(y, {w.bias.data(), 1, w.bias.size()});
    }
    void multiply(floats_view x, const matrix<float>& W, matrix_view<float> y) const {
        for (std::size_t t = 0; t < x.rows; ++t)
            for (std::size_t n = 0; n < W.rows(); ++n) y(t, n) = static_cast<float>(dot(x.row(t), W.view().row(n)));
    }
    void add_product(floats_view x, const weights& w, const norm_layer* after, scratch&,
                     matrix_view<float> states) const {
        matrix<float> y(states.rows, states.cols);
        multiply(x, w, y.view());
        if (after != nullptr) normalize(*after, y.view(), y.view());
        add(states, y.view());
    }

    void normalize(const norm_layer& layer, floats_view x, matrix_view<float> y) const {
        for (std::size_t t = 0; t < x.rows; ++t) {
            const auto features = static_cast<double>(x.cols);
            double mean = 0.0, squares = 0.0;
            if (layer.kind == norm_kind::layer)
                for (const float v : x.row(t)) mean += double{v} / features;
            for (const float v : x.row(t)) squares += (double{v} - mean) * (double{v} - mean);
            for (std::size_t i = 0; i < x.cols; ++i) {
                const double weight = layer.weight.size() != 0 ? double{layer.weight(i)} : 1.0;
                const double bias = layer.bias.size() != 0 ? double{layer.bias(i)} : 0.0;
                const double normed = (double{x(t, i)} - mean) / std::sqrt(squares / features + layer.eps);
                y(t, i) = static_cast<float>(normed * weight + bias);
            }
        }
    }
    void convert(floats_view x, matrix_view<float> y) const { solver_.download(x, y); }
    void rotate(floats_view cosines, floats_view sines, const rotary_heads& heads, matrix_view<float> x) const {
        for (std::size_t r = 0; r < x.rows; ++r)
            for (std::size_t head = 0; head < x.cols; head += heads.head_dim)
                for (std::size_t i = 0; i < cosines.cols; ++i) {
                    const auto [first, second] = heads.pair(i, cosines.cols);
                    const float cosine = cosines(r % cosines.rows, i), sine = sines(r % cosines.rows, i);
                    const float a = x(r, head + first), b = x(r, head + second);
                    x(r, head + first) = a * cosine - b * sine;
                    x(r, head + second) = b * cosine + a * sine;
                }
    }
    void attend(const attention_shape& s, floats_view q, floats_view k, floats_view v, scratch&,
                matrix_view<float> out) const {
        for (std::size_t r = 0; r < q.rows; ++r) {
            const std::size_t first_key = r / s.queries * s.keys;
            const std::size_t seen = r % s.queries + 1 + s.keys - s.queries;  // up to and including its own position
            const std::size_t from = s.span != 0 && seen > s.span ? seen - s.span : 0;
            for (std::size_t head = 0; head < s.heads; ++head) {
                const std::size_t column = head * s.head_dim, kv_column = head / s.group() * s.head_dim;
                std::vector<double> shares(seen);
                for (std::size_t p = from; p < seen; ++p)
                    shares[p] = s.scale * dot(q.row(r).subspan(column, s.head_dim),
                                              k.row(first_key + p).subspan(kv_column, s.head_dim));
                if (s.cap != 0.0f)
                    for (double& score : shares) score = s.cap * std::tanh(score / s.cap);
                softmax(std::span(shares).subspan(from));
                for (std::size_t i = 0; i < s.head_dim; ++i) {
                    double sum = 0.0;
                    for (std::size_t p = from; p < seen; ++p)
                        sum += shares[p] * double{v(first_key + p, kv_column + i)};
                    out(r, column + i) = static_cast<float>(sum);
                }
            }
        }
    }
    void activate(mlp_activation f, matrix_view<float> x) const {
        for (std::size_t r = 0; r < x.rows; ++r)
            for (float& value : x.row(r)) value = static_cast<float>(activated(f, value));
    }
    void gate(mlp_activation f, matrix_view<float> x, floats_view y) const {
        activate(f, x);
        for (std::size_t r = 0; r < x.rows; ++r)
            for (std::size_t c = 0; c < x.cols; ++c) x(r, c) *= y(r, c);
    }

    void cap(float c, matrix_view<float> x) const {
        for (std::size_t r = 0; r < x.rows; ++r)
            for (float& value : x.row(r)) value = static_cast<float>(c * std::tanh(double{value} / c));
    }

    void look_up(const matrix<float>& rows, std::span<const std::int32_t> ids, float factor,
                 matrix_view<float> states) const {
        for (std::size_t t = 0; t < ids.size(); ++t)
            for (std::size_t c = 0; c < states.cols; ++c)
                states(t, c) = factor * rows(static_cast<std::size_t>(ids[t]), c);
    }
    void add(matrix_view<float> states, floats_view terms) const {
        for (std::size_t r = 0; r < states.rows; ++r)
            for (std::size_t c = 0; c < states.cols; ++c) states(r, c) += terms(r % terms.rows, c);
    }
    void gather(floats_view x, std::span<const std::int32_t> rows, matrix_view<float> y) const {
        for (std::size_t i = 0; i < rows.size(); ++i)
            for (std::size_t c = 0; c < y.cols; ++c) y(i, c) = x(static_cast<std::size_t>(rows[i]), c);
    }
    void scatter_add(floats_view y, std::span<const std::int32_t> rows, std::span<const float> shares,
                     matrix_view<float> states) const {
        for (std::size_t i = 0; i < rows.size(); ++i)
            for (std::size_t c = 0; c < y.cols; ++c)
                states(static_cast<std::size_t>(rows[i]), c) += shares[i] * y(i, c);
    }
    std::vector<double> negative_log_likelihoods(floats_view logits, std::span<const std::int32_t> targets) const {
        std::vector<double> found;
        for (std::size_t r = 0; r < logits.rows; ++r) {
            std::vector<double> shares(logits.row(r).begin(), logits.row(r).end());
            softmax(shares);
            found.push_back(-std::log(shares[static_cast<std::size_t>(targets[r])]));
        }
        return found;
    }

    host_memory::lent<float> floats(const weights& w) const { return {w.W.view()}; }
    void replace(weights& w, floats_view W) const { solver_.download(W, w.W.view()); }
    template <class Statistics, class... Inputs>
    void add_tokens(Statistics& statistics, const Inputs&... inputs) const {
        statistics.add(inputs...);
    }

 private:
    static matrix<float> copy_of(floats_view from) {
        matrix<float> copy(from.rows, from.cols);
        reference_backend{}.download(from, copy.view());
        return copy;
    }
    static matrix<float> floats_of(const tensor2<float>& stored) { return copy_of(view_of(stored)); }
    static matrix<float> floats_of(const model::table& stored) { return floats_of(stored.floats()); }

    static double dot(std::span<const float> a, std::span<const float> b) {
        double sum = 0.0;
        for (std::size_t i = 0; i < a.size(); ++i) sum += double{a[i]} * double{b[i]};
        return sum;
    }
    static void softmax(std::span<double> x) {
        const double top = *std::max_element(x.begin(), x.end());
        double sum = 0.0;
        for (double& value : x) sum += value = std::exp(value - top);
        for (double& value : x) value /= sum;
    }
    static double activated(mlp_activation f, double x) {
        switch (f) {
            case mlp_activation::silu: return x / (1.0 + std::exp(-x));
            case mlp_activation::relu: return std::max(x, 0.0);
            case mlp_activation::relu_squared: return std::max(x, 0.0) * std::max(x, 0.0);
            case mlp_activation::gelu: return 0.5 * x * (1.0 + std::erf(x * std::sqrt(0.5)));
            case mlp_activation::gelu_tanh:
                return 0.5 * x * (1.0 + std::tanh(0.7978845608028654 * (x + 0.044715 * x * x * x)));
        }
        return x;
    }

    reference_backend solver_;
};

static_assert(ModelBackend<plain_model_backend>);

}  // namespace gptq::model
