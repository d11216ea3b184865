// The parts of a block that work on one row at a time: softmax, the functions inside the MLP, norms.
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>

#include <gptq/fold.hpp>
#include <gptq/kernels/rows.hpp>
#include <gptq/kernels/threads.hpp>
#include <gptq/matrix_view.hpp>
#include <gptq/model/architecture.hpp>
#include <gptq/model/norm_layer.hpp>

namespace gptq::model {

/// condition ? a : b, by their bits: with a branch, or what the compiler may take for one, it vectorizes no loop.
inline float select(bool condition, float a, float b) {
    const std::uint32_t mask = 0u - static_cast<std::uint32_t>(condition);
    return std::bit_cast<float>((std::bit_cast<std::uint32_t>(a) & mask) | (std::bit_cast<std::uint32_t>(b) & ~mask));
}

/// e^x for x <= 0, to about one unit in the last place; arguments below -87, and NaN, count as -87. Written without
/// branches and calls so that compilers vectorize loops around it: std::exp would take most of the time of attention.
inline float exp_nonpositive(float x) {
    x = select(x > -87.0f, x, -87.0f);
    const int n = static_cast<int>(x * 1.44269504f - 0.5f);  // nearest integer to x / ln 2, as x <= 0
    // ln 2 in two parts; n times the first is exact.
    const float r = (x - static_cast<float>(n) * 0.693359375f) + static_cast<float>(n) * 2.12194440e-4f;
    float sum = 1.0f / 5040;  // Taylor: |r| <= ln 2 / 2 leaves an error below 6e-9
    sum = sum * r + 1.0f / 720;
    sum = sum * r + 1.0f / 120;
    sum = sum * r + 1.0f / 24;
    sum = sum * r + 1.0f / 6;
    sum = sum * r + 0.5f;
    sum = sum * r + 1.0f;
    sum = sum * r + 1.0f;
    return sum * std::bit_cast<float>((n + 127) << 23);
}

/// 1 / (1 + e^-x)
inline float sigmoid(float x) {
    const float e = exp_nonpositive(-std::fabs(x));
    return select(x >= 0.0f, 1.0f, e) / (1.0f + e);
}

/// tanh x, to about three units in the last place: its series near 0, where the quotient would lose digits.
inline float hyperbolic_tangent(float x) {
    const float square = x * x;
    float sum = -929569.0f / 638512875.0f;
    sum = sum * square + 21844.0f / 6081075.0f;
    sum = sum * square - 1382.0f / 155925.0f;
    sum = sum * square + 62.0f / 2835.0f;
    sum = sum * square - 17.0f / 315.0f;
    sum = sum * square + 2.0f / 15.0f;
    sum = sum * square - 1.0f / 3.0f;
    sum = sum * square + 1.0f;
    const float e = exp_nonpositive(-2.0f * std::fabs(x));
    const float far = (1.0f - e) / (1.0f + e);
    return select(square < 0.25f, x * sum, select(x >= 0.0f, far, -far));
}

/// x = cap tanh(x / cap), for one row.
inline void cap_row(float cap, std::span<float> row) {
    const float scale = 1.0f / cap;
    for (float& x : row) x = cap * hyperbolic_tangent(x * scale);
}

/// The largest element; -infinity for none.
inline float largest(std::span<const float> row) {
    const auto larger = [](float a, float b) { return std::max(a, b); };
    return gptq::detail::fold(row.size(), -INFINITY, larger, [row](std::size_t i) { return row[i]; });
}

/// The sum, taken in double: rows are long, and single terms are what float is good enough for.
inline double sum_of(std::span<const float> row) {
    return gptq::detail::sum(row.size(), [row](std::size_t i) { return double{row[i]}; });
}

/// row = softmax(row), in place.
inline void softmax(std::span<float> row) {
    const float top = largest(row);
    for (float& x : row) x = exp_nonpositive(x - top);
    const auto scale = static_cast<float>(1.0 / sum_of(row));
    for (float& x : row) x *= scale;
}

/// The elements [first, last) become their softmax, the others 0.
inline void softmax_within(std::span<float> row, std::size_t first, std::size_t last) {
    softmax(row.subspan(first, last - first));
    std::ranges::fill(row.first(first), 0.0f);
    std::ranges::fill(row.subspan(last), 0.0f);
}

namespace detail {

/// f(r) for every row r of a [rows, cols] matrix, with the machine's vector instructions; by several threads only where
/// there are `much` elements. BLAS has threads of its own: between its calls, two teams whose idle threads wait
/// actively keep each other from the processors.
template <class F>
void for_each_row(std::size_t rows, std::size_t cols, const F& f, std::size_t much = std::size_t{1} << 20) {
    const std::size_t threads = rows * cols < much ? 1 : kernels::default_threads();
    kernels::in_parallel(rows, threads,
                         [&](std::size_t first, std::size_t last) { kernels::run_rows(best_isa(), f, first, last); });
}

template <class F>
void for_each_element(matrix_view<float> x, const F& f) {
    for_each_row(x.rows, x.cols, [&](std::size_t r) {
        for (float& value : x.row(r)) value = f(value);
    });
}

}  // namespace detail

/// x = f(x) element by element.
inline void activate(mlp_activation f, matrix_view<float> x) {
    switch (f) {
        case mlp_activation::silu: return detail::for_each_element(x, [](float v) { return v * sigmoid(v); });
        case mlp_activation::relu: return detail::for_each_element(x, [](float v) { return std::max(v, 0.0f); });
        case mlp_activation::relu_squared:
            return detail::for_each_element(x, [](float v) { return std::max(v, 0.0f) * std::max(v, 0.0f); });
        case mlp_activation::gelu:
            return detail::for_each_element(x, [](float v) { return 0.5f * v * (1.0f + std::erf(v * 0.70710678f)); });
        case mlp_activation::gelu_tanh:
            // (1 + tanh(u)) / 2 is the sigmoid of 2 u.
            return detail::for_each_element(
                x, [](float v) { return v * sigmoid(1.59576912f * (v + 0.044715f * v * v * v)); });
    }
}

/// x = cap tanh(x / cap) element by element.
inline void cap(float cap, matrix_view<float> x) {
    detail::for_each_row(x.rows, x.cols, [&](std::size_t r) { cap_row(cap, x.row(r)); });
}

/// x *= y element by element, of equal shapes.
inline void multiply(matrix_view<float> x, matrix_view<const float> y) {
    detail::for_each_row(x.rows, x.cols, [&](std::size_t r) {
        const std::span<float> to = x.row(r);
        const std::span<const float> by = y.row(r);
        for (std::size_t c = 0; c < to.size(); ++c) to[c] *= by[c];
    });
}

/// x += y element by element, of equal shapes.
inline void add(matrix_view<float> x, matrix_view<const float> y) {
    detail::for_each_row(x.rows, x.cols, [&](std::size_t r) {
        const std::span<float> to = x.row(r);
        const std::span<const float> term = y.row(r);
        for (std::size_t c = 0; c < to.size(); ++c) to[c] += term[c];
    });
}

namespace detail {

/// What a norm makes of a row before its weight and bias: (x - shift) scale.
struct row_norm {
    float shift = 0.0f, scale = 0.0f;

    row_norm(const norm_layer& norm, std::span<const float> x) {
        const auto features = static_cast<double>(x.size());
        const double mean = norm.kind == norm_kind::layer ? sum_of(x) / features : 0.0;
        const double squares = gptq::detail::sum(x.size(), [x, mean](std::size_t i) {
            const double centred = double{x[i]} - mean;
            return centred * centred;
        });
        shift = static_cast<float>(mean);
        scale = static_cast<float>(1.0 / std::sqrt(squares / features + norm.eps));
    }

    float operator()(float x) const { return (x - shift) * scale; }
};

inline void normalize_row(const norm_layer& norm, std::span<const float> x, std::span<float> y) {
    const row_norm normed(norm, x);
    for (std::size_t i = 0; i < x.size(); ++i) y[i] = normed(x[i]);
    if (norm.weight.size() != 0)
        for (std::size_t i = 0; i < x.size(); ++i) y[i] *= norm.weight.data()[i];
    if (norm.bias.size() != 0)
        for (std::size_t i = 0; i < x.size(); ++i) y[i] += norm.bias.data()[i];
}

}  // namespace detail

/// y = norm of the rows of x, sums taken in double; y may be x itself.                         x, y [tokens, features]
inline void normalize(const norm_layer& norm, matrix_view<const float> x, matrix_view<float> y) {
    detail::for_each_row(x.rows, x.cols, [&](std::size_t r) { detail::normalize_row(norm, x.row(r), y.row(r)); });
}

}  // namespace gptq::model
