// The Hessian of a layer's squared error, accumulated over calibration inputs: H = (2/T) X'X.
#pragma once

#include <algorithm>
#include <cstddef>
#include <string>
#include <type_traits>
#include <utility>

#include <gptq/concepts.hpp>
#include <gptq/error.hpp>
#include <gptq/finite.hpp>
#include <gptq/half.hpp>
#include <gptq/held_layer.hpp>
#include <gptq/matrix_like.hpp>
#include <gptq/matrix_view.hpp>

namespace gptq {

namespace detail {

/// a = share_a * a + share_b * b, row by row.
struct mix_row {
    matrix_view<float> a;
    matrix_view<const float> b;
    float share_a, share_b;
    constexpr void operator()(std::size_t r) const noexcept {
        for (std::size_t c = 0; c < a.cols; ++c) a(r, c) = share_a * a(r, c) + share_b * b(r, c);
    }
};

/// Row r of `from`, half or bfloat16, as floats.
template <class T>
struct widen_row {
    matrix_view<const T> from;
    matrix_view<float> to;
    constexpr void operator()(std::size_t r) const noexcept {
        for (std::size_t c = 0; c < to.cols; ++c) to(r, c) = to_float(from(r, c));
    }
};

}  // namespace detail

/// Running mean of 2 x x' over every token added, in the memory of backend B. Layers that share their input (q/k/v,
/// gate/up) share one Hessian. Memory: K x K floats.
template <Backend B>
class basic_hessian {
 public:
    /// For layers of `in_features` = K inputs. Throws shape_error for K = 0.
    explicit basic_hessian(std::size_t in_features, const B& backend = {})
        : backend_(backend), H_(backend.template make_matrix<float>(in_features, in_features)) {
        if (in_features == 0) throw shape_error("hessian: a layer has at least one input feature");
    }

    /// The Hessian that somebody else accumulated over `samples` tokens, H [K, K] in host memory, of which the upper
    /// triangle counts. Throws shape_error where it is not square, non_finite_error for NaN and infinity.
    static basic_hessian of(matrix_view<const float> H, std::size_t samples, const B& backend = {}) {
        if (H.rows != H.cols) throw shape_error("hessian: " + shape_string(H.rows, H.cols) + " is not square");
        require_finite(H, "hessian", "row", "column");
        basic_hessian made(H.cols, backend);
        const auto lent = backend.lend(H);
        backend.for_each_row(H.rows, detail::copy_row{lent.view(), made.H_.view()});
        made.samples_ = samples;
        return made;
    }

    /// Adds tokens. X: [T, K], any matrix that can be read element by element (an xtensor container, view or
    /// expression, a matrix_view); read in place where it lies row by row in memory. Cost: T K^2 flops. Throws
    /// shape_error where K differs, non_finite_error (naming the token and the feature) for NaN and infinity.
    template <class X>
    void add(const X& x) {
        const readable_matrix<float, X> readable(x, "hessian: the inputs");
        const auto inputs = readable.view();  // [T, K]
        check(inputs);
        if (inputs.rows == 0) return;
        const auto lent = backend_.lend(inputs);
        accumulate(matrix_view<const float>(lent.view()));
    }

    /// Adds tokens whose inputs are held in 16 bits, X [T, K] of half or bfloat16 in host memory. They are widened some
    /// hundred at a time, so that no copy of a calibration set is made. Throws as add() of floats.
    template <class T>
    requires(std::is_same_v<T, half> || std::is_same_v<T, bfloat16>) void add(matrix_view<const T> X) {
        check(X);
        for (std::size_t first = 0; first < X.rows; first += tokens_at_once) {
            const auto lent = backend_.lend(X.block(first, std::min(X.rows - first, tokens_at_once), 0, X.cols));
            add_widened(lent.view());
        }
    }

    /// Adds tokens whose inputs lie in the backend's memory, X [T, K] of float, half or bfloat16. NaN and infinity show
    /// in the diagonal. Numbers of 16 bits are widened some at a time where gram_update does not take them.
    template <class T>
    void add(in_backend_t, matrix_view<const T> X) {
        if (X.rows == 0) return;
        if constexpr (requires { backend_.gram_update(H_.view(), X, 1.0f, 1.0f); })
            accumulate(X);
        else
            add_widened(X);
    }

    /// Adds the tokens that `other` has seen, as if they had been added here. Throws shape_error where K differs.
    void merge(const basic_hessian& other) { merge(other, other.samples_); }

    /// The same, but the tokens of `other` count as `tokens` tokens, whatever their number.
    void merge(const basic_hessian& other, std::size_t tokens) {
        if (other.in_features() != in_features())
            throw shape_error("hessian: one of " + std::to_string(other.in_features()) + " features cannot be merged " +
                              "into one of " + std::to_string(in_features()));
        if (other.samples_ == 0 || tokens == 0) return;
        const double all = static_cast<double>(samples_ + tokens);
        backend_.for_each_row(in_features(), detail::mix_row{H_.view(), other.upper(),
                                                             static_cast<float>(static_cast<double>(samples_) / all),
                                                             static_cast<float>(static_cast<double>(tokens) / all)});
        samples_ += tokens;
    }

    std::size_t in_features() const { return H_.view().rows; }  ///< K
    /// How many tokens were added.
    std::size_t samples() const { return samples_; }
    /// H in the backend's memory; the upper triangle (row-major) holds it, the rest is unspecified.           [K, K]
    matrix_view<const float> upper() const { return H_.view(); }
    const B& backend() const { return backend_; }  ///< whose memory holds H

 private:
    template <class T>
    void check(matrix_view<const T> inputs) const {
        if (inputs.cols != in_features())
            throw shape_error("hessian: inputs are [tokens, in_features] = " + shape_string(inputs.rows, inputs.cols) +
                              ", but in_features is " + std::to_string(in_features()));
        require_finite(inputs, "hessian: the inputs", "token", "feature");
    }

    static constexpr std::size_t tokens_at_once = 512;

    /// X [T, K] in the backend's memory.
    template <class T>
    void add_widened(matrix_view<const T> X) {
        auto wide = backend_.template make_matrix<float>(std::min(X.rows, tokens_at_once), X.cols);
        for (std::size_t first = 0; first < X.rows; first += tokens_at_once) {
            const std::size_t tokens = std::min(X.rows - first, tokens_at_once);
            const auto piece = wide.view().block(0, tokens, 0, X.cols);
            backend_.for_each_row(tokens, detail::widen_row<T>{X.block(first, tokens, 0, X.cols), piece});
            accumulate(matrix_view<const float>(piece));
        }
    }

    /// X [T, K] in the backend's memory, T > 0.
    template <class T>
    void accumulate(matrix_view<const T> X) {
        const double before = static_cast<double>(samples_), added = static_cast<double>(X.rows);
        backend_.gram_update(H_.view(), X, static_cast<float>(2.0 / (before + added)),
                             static_cast<float>(before / (before + added)));
        samples_ += X.rows;
    }

    B backend_;
    decltype(std::declval<const B&>().template make_matrix<float>(0, 0)) H_;
    std::size_t samples_ = 0;
};

}  // namespace gptq
