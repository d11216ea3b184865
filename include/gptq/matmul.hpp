// Multiplying by a quantized layer: prepare once, then Y = X Wq' for any number of rows.
//
// This header is the seam and its reference: correct for every scheme, order and shape. It dequantizes a slab of output
// features at a time and leaves the product to the backend, so nothing the size of the layer is ever held in float.
#pragma once

#include <algorithm>
#include <cmath>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include <gptq/concepts.hpp>
#include <gptq/error.hpp>
#include <gptq/matrix_view.hpp>
#include <gptq/quantized.hpp>

namespace gptq {

/// How the inputs of a product are held: float as they are, or rounded to integers with one scale per token and group.
namespace activation {

/// The inputs as they are.
struct exact {
    static constexpr bool rounds = false;
    static void round(std::span<float>) noexcept {}
};

/// Symmetric rounding to integers of magnitude at most Levels.
template <int Levels>
struct rounded {
    static constexpr bool rounds = true;
    /// x: the inputs of one token in one group; replaced by the nearest multiples of max|x| / Levels.
    static void round(std::span<float> x) noexcept {
        float largest = 0.0f;
        for (const float v : x) largest = std::max(largest, std::fabs(v));
        if (!(largest > 0.0f) || !std::isfinite(largest)) return;
        const float scale = largest / static_cast<float>(Levels);
        for (float& v : x) v = std::nearbyint(v / scale) * scale;
    }
};

using int16 = rounded<32767>;  ///< closer to exact than half precision inputs are
using int8 = rounded<127>;     ///< lossy: opted into by name

}  // namespace activation

/// Activation<A>: how matmul holds its inputs.
///  1. round(x) replaces the inputs of one token in one group by the values that the kernel multiplies with.
///  2. A::rounds is false only if round changes nothing.
template <class A>
concept Activation = requires(std::span<float> x) {
    { A::rounds } -> std::convertible_to<bool>;
    A::round(x);
};

/// A quantized layer made ready for multiplication: input features sorted by group, so that act-order costs one
/// permutation of the inputs a call and nothing a weight.
template <Activation A>
class prepared {
 public:
    /// q: any layer with an affine grid, its g_idx in any order. Throws shape_error where g_idx names a group that has
    /// no scale or the shapes of q do not fit together.
    explicit prepared(const_quantized_view q)
        : codes_(q.codes.rows, q.codes.cols),
          scales_(q.scales.rows, q.scales.cols),
          zeros_(q.zeros.rows, q.zeros.cols) {
        check(q);
        sort_by_group(q.g_idx);
        for (std::size_t n = 0; n < out_features(); ++n) {
            for (std::size_t p = 0; p < in_features(); ++p) codes_(n, p) = q.codes(n, order_[p]);
            std::copy_n(q.scales.row(n).data(), groups(), &scales_(n, 0));
            std::copy_n(q.zeros.row(n).data(), groups(), &zeros_(n, 0));
        }
    }

    std::size_t out_features() const { return codes_.rows(); }
    std::size_t in_features() const { return codes_.cols(); }
    std::size_t groups() const { return scales_.cols(); }

    /// Y = X Wq'.   X [T, K]  Y [T, N]. Throws shape_error where the shapes do not fit.
    template <Backend B>
    void multiply(const B& backend, matrix_view<const float> X, matrix_view<float> Y) const {
        if (X.cols != in_features() || Y.cols != out_features() || Y.rows != X.rows)
            throw shape_error("matmul: X " + shape_string(X.rows, X.cols) + " times a layer " +
                              shape_string(out_features(), in_features()) + " into Y " + shape_string(Y.rows, Y.cols));
        matrix<float> held;  // [T, K] inputs sorted and rounded, if either is needed
        if (!sorted_ || A::rounds) {
            held = held_inputs(X);
            X = held.view();
        }
        constexpr std::size_t slab_width = 64;
        matrix<float> slab(in_features(), std::min(slab_width, out_features()));  // [K, width]
        for (std::size_t first = 0; first < out_features(); first += slab_width) {
            const std::size_t width = std::min(slab_width, out_features() - first);
            const auto Wt = slab.view().columns(0, width);
            dequantize_slab(first, Wt);
            backend.multiply(Y.columns(first, first + width), X, Wt, 1.0f, 0.0f);
        }
    }

 private:
    static void check(const_quantized_view q) {
        const std::size_t N = q.codes.rows, K = q.codes.cols, G = q.scales.cols;
        if (N == 0 || K == 0 || q.scales.rows != N || q.zeros.rows != N || q.zeros.cols != G || q.g_idx.size() != K)
            throw shape_error("prepare: codes " + shape_string(N, K) + ", scales " + shape_string(q.scales.rows, G) +
                              ", zeros " + shape_string(q.zeros.rows, q.zeros.cols) + " and g_idx [" +
                              std::to_string(q.g_idx.size()) + "] are not those of one layer");
        for (std::size_t k = 0; k < K; ++k)
            if (q.g_idx[k] < 0 || static_cast<std::size_t>(q.g_idx[k]) >= G)
                throw shape_error("prepare: g_idx[" + std::to_string(k) + "] = " + std::to_string(q.g_idx[k]) +
                                  " names none of the " + std::to_string(G) + " groups");
    }

    void sort_by_group(std::span<const std::int32_t> g_idx) {
        sorted_ = std::is_sorted(g_idx.begin(), g_idx.end());
        group_begin_.assign(groups() + 1, 0);
        for (const std::int32_t g : g_idx) ++group_begin_[static_cast<std::size_t>(g) + 1];
        for (std::size_t g = 0; g < groups(); ++g) group_begin_[g + 1] += group_begin_[g];
        std::vector<std::size_t> next(group_begin_.begin(), group_begin_.end() - 1);
        order_.resize(g_idx.size());
        for (std::size_t k = 0; k < g_idx.size(); ++k) order_[next[static_cast<std::size_t>(g_idx[k])]++] = k;
    }

    matrix<float> held_inputs(matrix_view<const float> X) const {
        matrix<float> held(X.rows, X.cols);
        for (std::size_t t = 0; t < X.rows; ++t) {
            const std::span<float> x = held.view().row(t);
            for (std::size_t p = 0; p < X.cols; ++p) x[p] = X(t, order_[p]);
            for (std::size_t g = 0; g < groups(); ++g)
                A::round(x.subspan(group_begin_[g], group_begin_[g + 1] - group_begin_[g]));
        }
        return held;
    }

    /// Wt(p, i) = weight of output feature first + i and sorted input feature p.                        Wt [K, width]
    void dequantize_slab(std::size_t first, matrix_view<float> Wt) const {
        for (std::size_t i = 0; i < Wt.cols; ++i)
            for (std::size_t g = 0; g < groups(); ++g) {
                const float scale = scales_(first + i, g);
                const int zero = zeros_(first + i, g);
                for (std::size_t p = group_begin_[g]; p < group_begin_[g + 1]; ++p)
                    Wt(p, i) = scale * static_cast<float>(codes_(first + i, p) - zero);
            }
    }

    matrix<std::uint8_t> codes_;            // [N, K], sorted by group
    matrix<float> scales_;                  // [N, G]
    matrix<std::uint8_t> zeros_;            // [N, G]
    std::vector<std::size_t> order_;        // [K], sorted position -> input feature
    std::vector<std::size_t> group_begin_;  // [G + 1]
    bool sorted_ = true;                    // order_ is the identity
};

}  // namespace gptq
