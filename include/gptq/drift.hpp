// Correction for the drift of a layer's inputs.
//
// In a quantized model a layer does not get the inputs X~ that the float model would give it, but X, with the errors of
// all layers before. It should still reproduce W X~: least squares says to quantize, in place of W,
//
//     W + alpha (Y~ - W X)' X (X'X)^-1                    with Y~ = W X~ (one token a row here: Y~ [T, N], X [T, K])
//
// alpha < 1 guards against fitting the calibration text. (The aim is that of GPTAQ, Li et al. 2025, whose update works
// inside the loop; this closed form comes before it and leaves the loop alone.) A layer whose outputs are added to
// states that have drifted too, S in place of S~, can take that along: Y~ = W X~ + (S~ - S).
#pragma once

#include <algorithm>
#include <cstddef>
#include <string>
#include <type_traits>
#include <utility>

#include <gptq/concepts.hpp>
#include <gptq/error.hpp>
#include <gptq/factor.hpp>
#include <gptq/finite.hpp>
#include <gptq/half.hpp>
#include <gptq/held_layer.hpp>
#include <gptq/hessian.hpp>
#include <gptq/layer_error.hpp>
#include <gptq/matrix_view.hpp>
#include <gptq/solver_state.hpp>

namespace gptq {

namespace detail {

/// Calls f(r, c) for rows [first, last) and columns [0, cols), square by square. A matrix is transposed fastest so,
/// because the rows and the columns of a square both stay in the caches.
template <class F>
constexpr void in_squares(std::size_t first, std::size_t last, std::size_t cols, const F& f) {
    constexpr std::size_t side = 16;
    for (std::size_t left = 0; left < cols; left += side)
        for (std::size_t top = first; top < last; top += side)
            for (std::size_t r = top; r < std::min(top + side, last); ++r)
                for (std::size_t c = left; c < std::min(left + side, cols); ++c) f(r, c);
}

/// Row m of (Y~ - Y)', some tokens of it.
template <class T>
struct transposed_difference {
    matrix_view<const T> wanted, actual;  // [t, M]
    matrix_view<float> to;                // [M, t]
    constexpr void operator()(std::size_t m) const noexcept { rows(m, m + 1); }
    constexpr void rows(std::size_t first, std::size_t last) const noexcept {
        in_squares(first, last, to.cols, [this](std::size_t m, std::size_t t) {
            to(m, t) = to_float(wanted(t, m)) - to_float(actual(t, m));
        });
    }
};

/// Row r of a matrix with rows and columns in reverse, transposed: an upper triangular one stays so.
struct anti_transpose_row {
    matrix_view<const float> from;  // [K, K]
    matrix_view<float> to;
    constexpr void operator()(std::size_t r) const noexcept { rows(r, r + 1); }
    constexpr void rows(std::size_t first, std::size_t last) const noexcept {
        const std::size_t end = to.cols - 1;
        in_squares(first, last, to.cols,
                   [this, end](std::size_t r, std::size_t c) { to(r, c) = from(end - c, end - r); });
    }
};

struct reverse_row {
    matrix_view<float> M;
    constexpr void operator()(std::size_t r) const noexcept { std::reverse(M.row(r).begin(), M.row(r).end()); }
};

/// Rows 0, step, 2 step, ... of M, whose elements it shares.
template <class T>
constexpr matrix_view<T> every_nth_row(matrix_view<T> M, std::size_t step) {
    return {M.data, (M.rows + step - 1) / step, M.cols, M.ld * step};
}

/// to(r, p) = from(r, order[p]), or the other way round.
struct permute_columns {
    matrix_view<const float> from;
    matrix_view<float> to;
    matrix_view<const std::size_t> order;  // [1, K]
    bool back;
    constexpr void operator()(std::size_t r) const noexcept {
        for (std::size_t p = 0; p < order.cols; ++p) {
            if (back)
                to(r, order(0, p)) = from(r, p);
            else
                to(r, p) = from(r, order(0, p));
        }
    }
};

}  // namespace detail

/// Running mean over tokens of 2 d x'. x is what a layer reads, and d is the float model's value less the quantized
/// model's. d is a difference of the inputs, which serves all layers that read them; or a difference of the states
/// after one layer's outputs are added to them, which serves this layer.
template <Backend B>
class basic_drift {
 public:
    /// For layers of `in_features` = K inputs. Memory: K x K floats.
    explicit basic_drift(std::size_t in_features, const B& backend = {})
        : backend_(backend),
          layer_(backend.template make_matrix<float>(0, in_features)),
          mean_(backend.template make_matrix<float>(in_features, in_features)) {}

    /// For the layer W [N, K], in the backend's memory, whose outputs are added to states. Memory: twice N x K floats.
    basic_drift(in_backend_t, matrix_view<const float> W, const B& backend = {})
        : backend_(backend),
          layer_(backend.template make_matrix<float>(W.rows, W.cols)),
          mean_(backend.template make_matrix<float>(W.rows, W.cols)) {
        backend.for_each_row(W.rows, detail::copy_row{W, layer_.view()});
    }

    /// The same for W in host memory.
    explicit basic_drift(matrix_view<const float> W, const B& backend = {})
        : basic_drift(in_backend, backend.lend(W).view(), backend) {}

    /// Adds tokens, all in host memory: the inputs X [T, K] and what they are in the float model; the states S [T, N]
    /// likewise, where there is one layer. Cost: 2 T K^2 flops, or 4 T N K for a layer. Throws shape_error where shapes
    /// do not fit, non_finite_error naming the token and the feature.
    void add(matrix_view<const float> float_X, matrix_view<const float> X, matrix_view<const float> float_S = {},
             matrix_view<const float> S = {}) {
        const std::size_t N = layer_.view().rows;
        check(float_X, X, in_features(), X.rows, "inputs");
        check(float_S, S, N, N == 0 ? 0 : X.rows, "states");
        const auto x = backend_.lend(X), float_x = backend_.lend(float_X);
        const auto s = backend_.lend(S), float_s = backend_.lend(float_S);
        add(in_backend, matrix_view<const float>(float_x.view()), matrix_view<const float>(x.view()),
            matrix_view<const float>(float_s.view()), matrix_view<const float>(s.view()));
    }

    /// The same for matrices in the backend's memory, inputs of float, half or bfloat16. NaN and infinity show in what
    /// follows from them.
    template <class T>
    void add(in_backend_t, matrix_view<const T> float_X, matrix_view<const T> X, matrix_view<const float> float_S,
             matrix_view<const float> S) {
        const std::size_t N = layer_.view().rows;
        if (X.rows == 0) return;
        const double before = static_cast<double>(samples_), added = static_cast<double>(X.rows);
        auto input_room = room_for(in_features()), output_room = room_for(N);
        for (std::size_t first = 0; first < X.rows; first += chunk_tokens) {
            const std::size_t count = std::min(chunk_tokens, X.rows - first);
            const auto rows = [&](auto m) { return m.block(first, count, 0, m.cols); };
            const float alpha = static_cast<float>(2.0 / (before + added));
            const float beta = static_cast<float>(first == 0 ? before / (before + added) : 1.0);
            auto missing = difference(rows(float_X), rows(X), input_room.view());
            if (N != 0) {
                const auto outputs = difference(rows(float_S), rows(S), output_room.view());
                backend_.multiply(outputs, layer_.view(), missing, 1.0f, 1.0f);
                missing = outputs;
            }
            if constexpr (std::is_same_v<T, float>) {
                backend_.multiply(mean_.view(), missing, rows(X), alpha, beta);
            } else {
                auto wide = backend_.template make_matrix<float>(count, X.cols);
                backend_.for_each_row(count, detail::widen_row<T>{rows(X), wide.view()});
                backend_.multiply(mean_.view(), missing, wide.view(), alpha, beta);
            }
        }
        samples_ += X.rows;
    }

    /// P: by how much the outputs of W, or the states after it, fall short, against the inputs. W, P: [N, K] in the
    /// backend's memory; rows 0, every, 2 every, ... of the layer, which is the one that this was made for, if it was
    /// for one. Throws shape_error where N or K differ.
    void shortfall(matrix_view<const float> W, matrix_view<float> P, std::size_t every = 1) const {
        const bool one_layer = layer_.view().rows != 0;
        const auto mean = one_layer ? detail::every_nth_row(mean_.view(), every) : mean_.view();
        if (W.cols != in_features() || (one_layer && mean.rows != W.rows))
            throw shape_error("drift: weights " + shape_string(W.rows, W.cols) + ", means " +
                              shape_string(mean.rows, mean.cols));
        if (one_layer)
            backend_.for_each_row(mean.rows, detail::copy_row{mean, P});
        else
            backend_.multiply(P, W, mean, 1.0f, 0.0f);
    }

    /// The mean, of which somebody else has added the tokens, in the place of the one here: [K, K] or [N, K], in host
    /// memory. Throws shape_error for another shape, non_finite_error for NaN and infinity.
    void take(matrix_view<const float> mean, std::size_t samples) {
        if (mean.rows != mean_.view().rows || mean.cols != mean_.view().cols)
            throw shape_error("drift: a mean of " + shape_string(mean.rows, mean.cols) + " in the place of one of " +
                              shape_string(mean_.view().rows, mean_.view().cols));
        require_finite(mean, "drift", "row", "column");
        const auto lent = backend_.lend(mean);
        backend_.for_each_row(mean.rows, detail::copy_row{lent.view(), mean_.view()});
        samples_ = samples;
    }

    std::size_t in_features() const { return mean_.view().cols; }   ///< K
    std::size_t samples() const { return samples_; }                ///< how many tokens were added
    matrix_view<const float> mean() const { return mean_.view(); }  ///< in the backend's memory
    bool of_layer() const { return layer_.view().rows != 0; }       ///< whether it was made for one layer

 private:
    static constexpr std::size_t chunk_tokens = 1024;

    static void check(matrix_view<const float> wanted, matrix_view<const float> actual, std::size_t features,
                      std::size_t tokens, const char* what) {
        if (wanted.rows != tokens || actual.rows != tokens ||
            (tokens != 0 && (wanted.cols != features || actual.cols != features)))
            throw shape_error(std::string("drift: ") + what + " " + shape_string(actual.rows, actual.cols) +
                              " and those of the float model " + shape_string(wanted.rows, wanted.cols) +
                              " are not both " + shape_string(tokens, features));
        const std::string name = std::string("drift: the ") + what;
        require_finite(actual, name.c_str(), "token", "feature");
        require_finite(wanted, (name + " of the float model").c_str(), "token", "feature");
    }

    /// For the differences of some tokens in `features` features. Rows are no power of two apart, which would let few
    /// of them into a cache.
    auto room_for(std::size_t features) const {
        return backend_.template make_matrix<float>(features, chunk_tokens + 16);
    }

    /// (wanted - actual)'
    template <class T>
    matrix_view<float> difference(matrix_view<const T> wanted, matrix_view<const T> actual,
                                  matrix_view<float> room) const {
        const matrix_view<float> to = room.columns(0, actual.rows);
        backend_.for_each_row(to.rows, detail::transposed_difference<T>{wanted, actual, to});
        return to;
    }

    B backend_;
    detail::backend_matrix<B, float> layer_;  // W [N, K], or none
    detail::backend_matrix<B, float> mean_;   // C [K, K], or P [N, K]
    std::size_t samples_ = 0;
};

/// Replaces M [N, K], in the backend's memory and the original order of columns, by M H_damped^-1, with two triangular
/// solves. Cost: 2 N K^2 flops and a K x K copy.
template <Backend B, FactorPath<B> P>
void solve_by_hessian(const factored_hessian<B, P>& f, matrix_view<float> M) {
    const B& backend = f.backend;
    const std::size_t K = f.in_features();
    const auto order = backend.lend(detail::row_of(f.order));
    auto A = backend.template make_matrix<float>(K, K), turned = backend.template make_matrix<float>(K, K);
    auto X = backend.template make_matrix<float>(M.rows, K);
    f.path.hessian_factor(backend, f.factor.view(), A.view());
    backend.for_each_row(K, detail::anti_transpose_row{A.view(), turned.view()});
    backend.for_each_row(M.rows, detail::permute_columns{M, X.view(), order.view(), false});
    // M (A A')^-1 = (M A'^-1) A^-1, and with J the reversal, A'^-1 = J (J A' J)^-1 J where J A' J is upper triangular.
    backend.for_each_row(M.rows, detail::reverse_row{X.view()});
    backend.solve_upper_right(X.view(), turned.view());
    backend.for_each_row(M.rows, detail::reverse_row{X.view()});
    backend.solve_upper_right(X.view(), A.view());
    backend.for_each_row(M.rows, detail::permute_columns{X.view(), M, order.view(), true});
}

/// What the calibration tokens of a layer input say about its drift, in two parts. The correction is fitted to the
/// tokens of `fit`; the tokens of `held` tell how much of it to apply.
template <Backend B, FactorPath<B> P>
struct drift_statistics {
    basic_drift<B> fit, held;
    factored_hessian<B, P> fit_factor;  ///< of the Hessian of fit's tokens
    basic_hessian<B> held_hessian;      ///< of held's tokens
};

namespace detail {

/// The correction S [N, K] that `fit` asks for, and what a multiple alpha of it does to the tokens held out: their
/// squared error changes by alpha^2 cost - 2 alpha gain.
template <Backend B>
struct drift_step {
    backend_matrix<B, float> S;
    double gain = 0.0, cost = 0.0;

    double alpha() const { return cost > 0.0 ? std::clamp(gain / cost, 0.0, 1.0) : 0.0; }
    double saving() const { return alpha() * (2.0 * gain - alpha() * cost); }
};

/// W: [N, K] in the backend's memory, rows 0, every, 2 every, ... of the layer.
template <Backend B, FactorPath<B> P>
drift_step<B> find_drift_step(matrix_view<const float> W, const drift_statistics<B, P>& drift, std::size_t every) {
    const B& backend = drift.fit_factor.backend;
    drift_step<B> step{backend.template make_matrix<float>(W.rows, W.cols)};
    auto held_shortfall = backend.template make_matrix<float>(W.rows, W.cols);
    drift.fit.shortfall(W, step.S.view(), every);
    solve_by_hessian(drift.fit_factor, step.S.view());
    drift.held.shortfall(W, held_shortfall.view(), every);
    step.gain = inner_product(backend, held_shortfall.view(), step.S.view());
    step.cost = weighted_squares(backend, step.S.view(), drift.held_hessian.upper());
    return step;
}

}  // namespace detail

/// By how much correct_drift would lower the squared error (tr(D H D'), as output_error has it) that drift causes on
/// the tokens held out, judged by rows 0, every, 2 every, ... of W [N, K] in the backend's memory. For choosing the
/// damping of fit_factor. Cost: about 8 N K^2 / every flops. Throws shape_error where the shapes do not fit.
template <Backend B, FactorPath<B> P>
double drift_saving(in_backend_t, matrix_view<const float> W, const drift_statistics<B, P>& drift,
                    std::size_t every = 1) {
    return detail::find_drift_step(detail::every_nth_row(W, every), drift, every).saving();
}

/// The same for W in host memory.
template <Backend B, FactorPath<B> P>
double drift_saving(matrix_view<const float> W, const drift_statistics<B, P>& drift, std::size_t every = 1) {
    const auto lent = drift.fit_factor.backend.lend(detail::every_nth_row(W, every));
    return detail::find_drift_step(lent.view(), drift, every).saving();
}

/// Replaces W [N, K], in the backend's memory, by the weights to quantize in its place, and returns alpha. alpha is the
/// best there is for the tokens held out, in closed form: with P and H their shortfall and Hessian, and S = the
/// correction found without them, <P, S> / tr(S H S'), kept between 0 and 1. Cost: about 8 N K^2 flops; memory: 3 N K +
/// 3 K^2 floats. Throws shape_error where the shapes do not fit.
template <Backend B, FactorPath<B> P>
double correct_drift(in_backend_t, matrix_view<float> W, const drift_statistics<B, P>& drift) {
    const B& backend = drift.fit_factor.backend;
    auto step = detail::find_drift_step<B, P>(W, drift, 1);
    const double alpha = step.alpha();
    backend.for_each_row(W.rows, detail::mix_row{step.S.view(), W, static_cast<float>(alpha), 1.0f});
    backend.for_each_row(W.rows, detail::copy_row{step.S.view(), W});
    return alpha;
}

/// The same for W in host memory.
template <Backend B, FactorPath<B> P>
double correct_drift(matrix_view<float> W, const drift_statistics<B, P>& drift) {
    const B& backend = drift.fit_factor.backend;
    auto held = backend.template make_matrix<float>(W.rows, W.cols);
    const auto lent = backend.lend(W);
    backend.for_each_row(W.rows, detail::copy_row{lent.view(), held.view()});
    const double alpha = correct_drift(in_backend, held.view(), drift);
    backend.download(held.view(), W);
    return alpha;
}

}  // namespace gptq
