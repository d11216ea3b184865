// What a user calls: matrices of any readable type in, xtensor containers out.
#pragma once

#include <concepts>
#include <cstddef>
#include <string>
#include <type_traits>
#include <utility>

#include <gptq/backends/cpu/cpu_backend.hpp>
#include <gptq/factor.hpp>
#include <gptq/hessian.hpp>
#include <gptq/layer_error.hpp>
#include <gptq/matrix_like.hpp>
#include <gptq/observer.hpp>
#include <gptq/options.hpp>
#include <gptq/quantize.hpp>
#include <gptq/refine.hpp>
#include <gptq/round_to_nearest.hpp>
#include <gptq/scheme.hpp>
#include <gptq/xtensor/adapt.hpp>
#include <gptq/xtensor/quantized.hpp>
#ifdef GPTQ_COMPILED
#include <gptq/backends/cpu/usual.hpp>
#endif

namespace gptq {

/// The Hessian of a layer's inputs, accumulated in float; see basic_hessian.
template <std::same_as<float> T = float, Backend B = cpu_backend>
using hessian = basic_hessian<B>;

/// Orders, damps and factors a Hessian for scheme S. The result serves every layer that shares the input: q/k/v, or
/// gate and up. `backend` may differ from the one that accumulated `h`, whose matrix then goes through host memory.
/// Throws shape_error for a Hessian without samples or options out of range, non_finite_error where its sums
/// overflowed.
template <Scheme S, Backend H, Backend B = cpu_backend, FactorPath<B> P = inverse_free_path>
factored_hessian<B, P> factorize(const basic_hessian<H>& h, const quantize_options& options = {}, const B& backend = {},
                                 const P& path = {}) {
    using order = typename S::order;
    const std::size_t K = h.in_features();
    const std::size_t group_features = S::group::features(K, options.group_size);
    if (h.samples() == 0)
        throw shape_error(
            "hessian: no calibration inputs were added, so there is nothing to quantize by; add some, or use "
            "round_to_nearest");
    if constexpr (std::is_same_v<H, B>) {
        return factor_hessian<order>(backend, h.upper(), group_features, options, path);
    } else {
        matrix<float> host(K, K);
        h.backend().download(h.upper(), host.view());
        const auto lent = backend.lend(std::as_const(host).view());
        return factor_hessian<order>(backend, lent.view(), group_features, options, path);
    }
}

/// Quantizes W [out_features, in_features] by GPTQ with scheme S, from a Hessian that was factored for S.
/// Deterministic for a given backend and number of threads. Throws shape_error where shapes do not fit,
/// non_finite_error for weights that are NaN or infinite. (Frantar et al. 2023, algorithm 1)
template <Scheme S, ReadableMatrix M, Backend B, FactorPath<B> P, class O = no_observer>
requires Observer<std::remove_reference_t<O>> quantized<S> quantize(const M& W, const factored_hessian<B, P>& f,
                                                                    const quantize_options& options = {},
                                                                    O&& observer = {}) {
    const readable_matrix<float, M> weights(W, "weights");
    quantized<S> q;
    allocate(q, weights.view().rows, weights.view().cols, f.group_features);
    observer_ref watching(observer);
    q.report = solve_and_refine<S::bits>(weights.view(), f, q.view(), options, watching, typename S::grid{});
    return q;
}

/// The same from the Hessian itself.
template <Scheme S, ReadableMatrix M, Backend H, Backend B = cpu_backend, FactorPath<B> P = inverse_free_path,
          class O = no_observer>
requires Observer<std::remove_reference_t<O>> quantized<S> quantize(const M& W, const basic_hessian<H>& h,
                                                                    const quantize_options& options = {},
                                                                    const B& backend = {}, const P& path = {},
                                                                    O&& observer = {}) {
    return quantize<S>(W, factorize<S>(h, options, backend, path), options, std::forward<O>(observer));
}

/// Rounds every weight to the nearest value of its group's grid; groups are runs of the original columns whatever S's
/// order. Throws as quantize().
template <Scheme S, ReadableMatrix M, Backend B = cpu_backend>
quantized<S> round_to_nearest(const M& W, const quantize_options& options = {}, const B& backend = {}) {
    const readable_matrix<float, M> weights(W, "weights");
    const std::size_t group_features = S::group::features(weights.view().cols, options.group_size);
    quantized<S> q;
    allocate(q, weights.view().rows, weights.view().cols, group_features);
    round_to_nearest_into<S::bits>(backend, weights.view(), group_features, q.view(), typename S::grid{});
    return q;
}

/// The float weights that the codes stand for: [out_features, in_features].
template <Scheme S>
tensor2<float> dequantize(const quantized<S>& q) {
    auto W = make_tensor2<float>(q.out_features(), q.in_features());
    dequantize_into<typename S::grid, S::bits>(q.view(), view_of(W));
    return W;
}

/// The same for a layer that is known at run time only.
inline tensor2<float> dequantize(const quantized_layer& q) {
    auto W = make_tensor2<float>(q.out_features(), q.in_features());
    dequantize_into(q.view(), view_of(W));
    return W;
}

/// tr((W - Wq) H (W - Wq)'): twice the mean squared error of the layer's outputs on the calibration inputs, summed over
/// the output features. Q is a quantized<S> or a quantized_layer. Throws shape_error where the shapes differ.
template <ReadableMatrix M, class Q, Backend B>
requires requires(const Q& q) { dequantize(q); }
double layer_error(const M& W, const Q& q, const basic_hessian<B>& h) {
    const readable_matrix<float, M> weights(W, "weights");
    const auto w = weights.view();
    tensor2<float> D = dequantize(q);
    if (D.shape()[0] != w.rows || D.shape()[1] != w.cols)
        throw shape_error("layer_error: weights " + shape_string(w.rows, w.cols) + " and a quantized layer " +
                          shape_string(D.shape()[0], D.shape()[1]));
    for (std::size_t n = 0; n < w.rows; ++n)
        for (std::size_t k = 0; k < w.cols; ++k) D(n, k) = w(n, k) - D(n, k);
    return output_error(view_of(std::as_const(D)), h);
}

}  // namespace gptq
