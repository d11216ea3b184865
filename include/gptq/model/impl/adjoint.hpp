// The bodies of <gptq/model/adjoint.hpp>.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <numeric>
#include <span>
#include <vector>

#include <gptq/backends/cpu/blas.hpp>
#include <gptq/compiled.hpp>
#include <gptq/error.hpp>
#include <gptq/fold.hpp>
#include <gptq/matrix_view.hpp>
#include <gptq/model/adjoint.hpp>
#include <gptq/model/architecture.hpp>
#include <gptq/model/attention_shape.hpp>
#include <gptq/model/buffers.hpp>
#include <gptq/model/dense.hpp>
#include <gptq/model/elementwise.hpp>
#include <gptq/model/linear.hpp>
#include <gptq/model/norm_layer.hpp>
#include <gptq/model/stored_layer.hpp>
#include <gptq/model/table.hpp>
#include <gptq/xtensor/adapt.hpp>

namespace gptq::model {

// ---- products -------------------------------------------------------------------------------------------------------

namespace detail {

/// dx += dy up down.
inline void add_term_adjoint(const low_rank_term& term, matrix_view<const float> dy, matrix_view<float> dx) {
    const matrix_view<const float> down = view_of(term.down), up = view_of(term.up);
    matrix<float> narrow(dy.rows, up.cols);
    blas::gemm(dy, up, narrow.view(), 1.0f, 0.0f);
    blas::gemm(narrow.view(), down, dx, 1.0f, 1.0f);
}

}  // namespace detail

GPTQ_INLINE void multiply_adjoint(std::span<const linear_gradient<linear>> outputs, matrix_view<float> dx) {
    float kept = 0.0f;
    for (const auto& [layer, dy] : outputs) {
        if (layer.weight.size() == 0)
            throw unsupported_error(
                "the gradient of a layer that is not held in float: hold it dense "
                "(quantized_form::dense)");
        blas::gemm(dy, view_of(layer.weight), dx, 1.0f, kept);
        for (const low_rank_term& term : layer.terms) detail::add_term_adjoint(term, dy, dx);
        kept = 1.0f;
    }
}

GPTQ_INLINE void multiply_adjoint(matrix_view<const float> dy, const table& tokens, matrix_view<float> dx) {
    constexpr std::size_t slab = 2048;
    matrix<float> wide(std::min(slab, tokens.rows()), tokens.cols());
    tokens.visit([&](const auto& numbers) {
        for (std::size_t first = 0; first < numbers.rows; first += slab) {
            const std::size_t last = std::min(first + slab, numbers.rows);
            const auto widen_row = [&](std::size_t r) {
                const auto from = numbers.row(first + r);
                const std::span<float> to = wide.view().row(r);
                for (std::size_t i = 0; i < to.size(); ++i) to[i] = widen_finite(from[i]);
            };
            detail::for_each_row(last - first, numbers.cols, widen_row);
            blas::gemm(dy.columns(first, last), wide.view().block(0, last - first, 0, numbers.cols), dx, 1.0f,
                       first == 0 ? 0.0f : 1.0f);
        }
    });
}

// ---- norms ----------------------------------------------------------------------------------------------------------

namespace detail {

/// With n = (x - shift) scale and g = dn, dx = scale (g - mean(g n) n), and minus its mean where the norm has one.
struct normalize_row_adjoint {
    const norm_layer& norm;
    matrix_view<const float> x, dy;
    matrix_view<float> dx;

    void operator()(std::size_t r) const {
        const std::span<const float> in = x.row(r);
        const std::span<float> out = dx.row(r);
        const row_norm normed(norm, in);
        std::ranges::copy(dy.row(r), out.begin());
        if (norm.weight.size() != 0)
            for (std::size_t i = 0; i < out.size(); ++i) out[i] *= norm.weight.data()[i];
        const auto features = static_cast<double>(out.size());
        const double along =
            gptq::detail::sum(out.size(), [&](std::size_t i) { return double{out[i]} * double{normed(in[i])}; });
        const auto slope = static_cast<float>(along / features);
        const auto mean = norm.kind == norm_kind::layer ? static_cast<float>(sum_of(out) / features) : 0.0f;
        for (std::size_t i = 0; i < out.size(); ++i) out[i] = normed.scale * (out[i] - mean - slope * normed(in[i]));
    }
};

/// The rows' shares of the gradients of weight and bias.                            x, dy [rows, features]  sums [2, features]
inline void sum_norm_gradients(const norm_layer& norm, matrix_view<const float> x, matrix_view<const float> dy,
                               matrix_view<float> sums) {
    std::ranges::fill(sums.row(0), 0.0f);
    std::ranges::fill(sums.row(1), 0.0f);
    const auto add_row = [&](std::size_t r) {
        const std::span<const float> in = x.row(r), gradient = dy.row(r);
        const std::span<float> weight = sums.row(0), bias = sums.row(1);
        const row_norm normed(norm, in);
        for (std::size_t i = 0; i < in.size(); ++i) weight[i] += gradient[i] * normed(in[i]);
        for (std::size_t i = 0; i < in.size(); ++i) bias[i] += gradient[i];
    };
    kernels::run_rows(best_isa(), add_row, 0, x.rows);
}

}  // namespace detail

GPTQ_INLINE void normalize_adjoint(const norm_layer& norm, matrix_view<const float> x, matrix_view<const float> dy,
                                   matrix_view<float> dx, matrix_view<float> sums) {
    if (sums.rows != 0) detail::sum_norm_gradients(norm, x, dy, sums);
    detail::for_each_row(x.rows, x.cols, detail::normalize_row_adjoint{norm, x, dy, dx});
}

// ---- rotation -------------------------------------------------------------------------------------------------------

GPTQ_INLINE void rotate_adjoint(matrix_view<const float> cosines, matrix_view<const float> sines,
                                const rotary_heads& heads, matrix_view<float> dx) {
    const std::size_t half = cosines.cols;
    for (std::size_t r = 0; r < dx.rows; ++r) {
        const std::span<const float> c = cosines.row(r % cosines.rows), s = sines.row(r % cosines.rows);
        for (std::size_t head = 0; head < dx.cols; head += heads.head_dim)
            for (std::size_t i = 0; i < half; ++i) {
                const auto pair = heads.pair(i, half);
                float &first = dx(r, head + pair.first), &second = dx(r, head + pair.second);
                const float a = first, b = second;
                first = a * c[i] + b * s[i];
                second = b * c[i] - a * s[i];
            }
    }
}

// ---- attention ------------------------------------------------------------------------------------------------------

namespace detail {

/// The attention of one head and its gradients, queries in tiles. With P = softmax(scale q k'), dP = dout v' and
/// dS = scale P (dP - rowsum(P dP)): dv = P' dout, dq = dS k, dk = dS' q. Scores that are
/// capped to c have dS (1 - (c / cap)²).
struct attend_head_adjoint {
    static constexpr std::size_t tile = 64;

    const attention_shape& shape;
    matrix_view<const float> q, k, v, dout;  // [queries, head_dim], [keys, head_dim] twice, as q
    matrix_view<float> weights, slopes;      // [tile, keys], P and dP of some queries
    matrix_view<float> capped;               // likewise, their capped scores, or empty
    matrix_view<float> dq, dk, dv;           // dk and dv get this head's share added

    void operator()() const {
        for (std::size_t r = 0; r < q.rows; r += tile) add_queries(r, std::min(tile, q.rows - r));
    }

 private:
    void add_queries(std::size_t r, std::size_t count) const {
        const std::size_t begin = shape.seen_by(r).first, seen = shape.seen_by(r + count - 1).second - begin;
        const auto rows_of = [&](const auto& m) { return m.block(r, count, 0, m.cols); };
        const auto seen_of = [&](const auto& m) { return m.block(begin, seen, 0, m.cols); };
        const auto P = weights.block(0, count, 0, seen), dP = slopes.block(0, count, 0, seen);
        blas::gemm_nt(rows_of(q), seen_of(k), P, shape.scale, 0.0f);
        const auto soften = [&](std::size_t i) {
            const auto [first, last] = shape.seen_by(r + i);
            if (shape.cap != 0.0f) {
                cap_row(shape.cap, P.row(i));
                std::ranges::copy(P.row(i), capped.row(i).begin());
            }
            softmax_within(P.row(i), first - begin, last - begin);
        };
        kernels::run_rows(best_isa(), soften, 0, count);
        blas::gemm_tn(P, rows_of(dout), seen_of(dv), 1.0f, 1.0f);
        blas::gemm_nt(rows_of(dout), seen_of(v), dP, 1.0f, 0.0f);
        const auto pull_through_softmax = [&](std::size_t i) {
            const std::span<const float> p = P.row(i);
            const std::span<float> dp = dP.row(i);
            const float mean = gptq::detail::sum<16>(p.size(), [&](std::size_t j) { return p[j] * dp[j]; });
            for (std::size_t j = 0; j < dp.size(); ++j) dp[j] = shape.scale * p[j] * (dp[j] - mean);
        };
        kernels::run_rows(best_isa(), pull_through_softmax, 0, count);
        if (shape.cap != 0.0f) cap_adjoint(shape.cap, capped.block(0, count, 0, seen), dP);
        blas::gemm(dP, seen_of(k), rows_of(dq), 1.0f, 0.0f);
        blas::gemm_tn(dP, rows_of(q), seen_of(dk), 1.0f, 1.0f);
    }
};

}  // namespace detail

GPTQ_INLINE void attend_adjoint(const attention_shape& shape, matrix_view<const float> q, matrix_view<const float> k,
                                matrix_view<const float> v, matrix_view<const float> dout, scratch_matrix& memory,
                                matrix_view<float> dq, matrix_view<float> dk, matrix_view<float> dv) {
    constexpr std::size_t tile = detail::attend_head_adjoint::tile;
    const matrix_view<float> all = memory.shaped((shape.cap != 0.0f ? 3 : 2) * tile, k.rows);
    const auto weights = all.block(0, tile, 0, k.rows), slopes = all.block(tile, tile, 0, k.rows);
    const auto capped = all.block(2 * tile, all.rows - 2 * tile, 0, k.rows);
    for (const auto& gradient : {dk, dv})
        for (std::size_t r = 0; r < gradient.rows; ++r) std::ranges::fill(gradient.row(r), 0.0f);
    for (std::size_t head = 0; head < shape.heads; ++head) {
        const std::size_t own = head * shape.head_dim, read = head / shape.group() * shape.head_dim;
        const auto of_head = [&](const auto& m) { return m.columns(own, own + shape.head_dim); };
        const auto of_keys = [&](const auto& m) { return m.columns(read, read + shape.head_dim); };
        detail::attend_head_adjoint{shape,  of_head(q), of_keys(k),  of_keys(v),  of_head(dout), weights,
                                    slopes, capped,     of_head(dq), of_keys(dk), of_keys(dv)}();
    }
}

// ---- the MLP's functions --------------------------------------------------------------------------------------------

namespace detail {

struct value_and_slope {
    float value, slope;
};

/// use(x -> f(x) and its derivative).
template <class Use>
void with_slope(mlp_activation f, const Use& use) {
    switch (f) {
        case mlp_activation::silu:
            return use([](float x) {
                const float s = sigmoid(x);
                return value_and_slope{x * s, s * (1.0f + x * (1.0f - s))};
            });
        case mlp_activation::relu:
            return use([](float x) { return value_and_slope{std::max(x, 0.0f), x > 0.0f ? 1.0f : 0.0f}; });
        case mlp_activation::relu_squared:
            return use([](float x) {
                const float positive = std::max(x, 0.0f);
                return value_and_slope{positive * positive, 2.0f * positive};
            });
        case mlp_activation::gelu:
            return use([](float x) {
                const float below = 0.5f * (1.0f + std::erf(x * 0.70710678f));
                return value_and_slope{x * below, below + x * 0.39894228f * exp_nonpositive(-0.5f * x * x)};
            });
        case mlp_activation::gelu_tanh:
            return use([](float x) {
                const float s = sigmoid(1.59576912f * (x + 0.044715f * x * x * x));
                const float inner = 1.59576912f * (1.0f + 0.134145f * x * x);
                return value_and_slope{x * s, s * (1.0f + x * (1.0f - s) * inner)};
            });
    }
}

}  // namespace detail

GPTQ_INLINE void activate_adjoint(mlp_activation f, matrix_view<const float> x, matrix_view<float> dx) {
    detail::with_slope(f, [&](const auto& of) {
        detail::for_each_row(x.rows, x.cols, [&](std::size_t r) {
            const std::span<const float> in = x.row(r);
            const std::span<float> gradient = dx.row(r);
            for (std::size_t i = 0; i < in.size(); ++i) gradient[i] *= of(in[i]).slope;
        });
    });
}

GPTQ_INLINE void gate_adjoint(mlp_activation f, matrix_view<const float> x, matrix_view<const float> y,
                              matrix_view<const float> dz, matrix_view<float> dx, matrix_view<float> dy) {
    detail::with_slope(f, [&](const auto& of) {
        detail::for_each_row(x.rows, x.cols, [&](std::size_t r) {
            const std::span<const float> in = x.row(r), factor = y.row(r), gradient = dz.row(r);
            const std::span<float> of_in = dx.row(r), of_factor = dy.row(r);
            for (std::size_t i = 0; i < in.size(); ++i) {
                const detail::value_and_slope at = of(in[i]);
                of_in[i] = gradient[i] * factor[i] * at.slope;
                of_factor[i] = gradient[i] * at.value;
            }
        });
    });
}

GPTQ_INLINE void cap_adjoint(float cap, matrix_view<const float> y, matrix_view<float> dx) {
    detail::for_each_row(y.rows, y.cols, [&](std::size_t r) {
        const std::span<const float> capped = y.row(r);
        const std::span<float> gradient = dx.row(r);
        for (std::size_t i = 0; i < capped.size(); ++i) {
            const float share = capped[i] / cap;
            gradient[i] *= 1.0f - share * share;
        }
    });
}

// ---- the loss -------------------------------------------------------------------------------------------------------

namespace detail {

/// One row: the divergence, and its gradient, softmax(logits) - softmax(reference), times factor in the logits' place.
inline double distill_row(std::span<const float> reference, float factor, std::span<float> logits) {
    const float top = largest(logits), reference_top = largest(reference);
    const auto mass_of = [](std::span<const float> row, float highest) {
        return gptq::detail::sum(row.size(), [=](std::size_t i) { return double{exp_nonpositive(row[i] - highest)}; });
    };
    const double mass = mass_of(logits, top), reference_mass = mass_of(reference, reference_top);
    const auto share = static_cast<float>(1.0 / mass), reference_share = static_cast<float>(1.0 / reference_mass);
    const double apart = gptq::detail::sum(logits.size(), [=](std::size_t i) {
        const float p = exp_nonpositive(reference[i] - reference_top) * reference_share;
        const float q = exp_nonpositive(logits[i] - top) * share;
        const double log_ratio = (double{reference[i]} - reference_top) - (double{logits[i]} - top);
        logits[i] = factor * (q - p);
        return double{p} * log_ratio;
    });
    return apart + std::log(mass) - std::log(reference_mass);
}

}  // namespace detail

GPTQ_INLINE double distill(matrix_view<const float> reference, float factor, matrix_view<float> logits) {
    std::vector<double> divergences(logits.rows);
    detail::for_each_row(logits.rows, logits.cols, [&](std::size_t r) {
        divergences[r] = detail::distill_row(reference.row(r), factor, logits.row(r));
    });
    return std::accumulate(divergences.begin(), divergences.end(), 0.0);
}

}  // namespace gptq::model
