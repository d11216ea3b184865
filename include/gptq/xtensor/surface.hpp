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
/// Throws shape_error for a Hessian without samples, option_error for options out of range, non_finite_error where the
/// Hessian's sums overflowed, concept_error for an order or a group policy that breaks its promises.
template <Scheme S, Backend H, Backend B = H, FactorPath<B> P = inverse_free_path>
factored_hessian<B, P> factorize(const basic_hessian<H>& h, const quantize_options& options, const B& backend,
                                 const P& path = {}, const typename S::order& order = {}) {
    check_options(options);
    const std::size_t K = h.in_features();
    const std::size_t group_features = detail::features_of<typename S::group>(K, options.group_size);
    if (h.samples() == 0)
        throw shape_error(
            "hessian: no calibration inputs were added, so there is nothing to quantize by; add some, or use "
            "round_to_nearest");
    if constexpr (std::is_same_v<H, B>) {
        return factor_hessian(backend, h.upper(), group_features, options, path, order, h.samples());
    } else {
        matrix<float> host(K, K);
        h.backend().download(h.upper(), host.view());
        const auto lent = backend.lend(std::as_const(host).view());
        return factor_hessian(backend, lent.view(), group_features, options, path, order, h.samples());
    }
}

/// The same on the Hessian's own backend.
template <Scheme S, Backend H>
factored_hessian<H, inverse_free_path> factorize(const basic_hessian<H>& h, const quantize_options& options = {}) {
    return factorize<S>(h, options, h.backend());
}

namespace detail {

/// Throws option_error unless f was made for scheme S and for these options, as far as they say anything of it.
template <Scheme S, Backend B, class P>
void check_factor(const factored_hessian<B, P>& f, const quantize_options& options) {
    check_options(options);
    const auto refuse = [](const std::string& what) {
        throw option_error(what + "; factorize for what you quantize with");
    };
    if (const std::string order = type_name<typename S::order>(); order != f.order_name)
        refuse("order: the Hessian was factored for " + f.order_name + ", the scheme's order is " + order);
    const bool says_size = !std::is_same_v<typename S::group, group_size<dynamic>> || options.group_size != dynamic;
    if (says_size)
        if (const auto size = features_of<typename S::group>(f.in_features(), options.group_size);
            size != f.group_features)
            refuse("group_size: the Hessian was factored for groups of " + std::to_string(f.group_features) +
                   ", the scheme's are of " + std::to_string(size));
    const bool same_damping =
        options.damp_percent == f.options.damp_percent && options.choose_damping == f.options.choose_damping;
    if (names_damping(options) && !same_damping)
        refuse("damp_percent: the Hessian has been factored already, with another damping");
}

}  // namespace detail

/// Quantizes W [out_features, in_features] by GPTQ with scheme S, from a Hessian that was factored for S.
/// Deterministic for a given backend and number of threads. Throws shape_error where shapes do not fit,
/// non_finite_error for weights that are NaN or infinite, option_error for options out of range or other than those of
/// the factor, concept_error for a grid that breaks its promises, and what the grid and the observer throw. (Frantar et
/// al. 2023, algorithm 1)
template <Scheme S, ReadableMatrix M, Backend B, FactorPath<B> P, class O = no_observer>
requires Observer<std::remove_reference_t<O>> quantized<S> quantize(const M& W, const factored_hessian<B, P>& f,
                                                                    const quantize_options& options = {},
                                                                    O&& observer = {},
                                                                    const typename S::grid& grid = {}) {
    detail::check_factor<S>(f, options);
    const readable_matrix<float, M> weights(W, "weights");
    quantized<S> q;
    allocate(q, weights.view().rows, weights.view().cols, f.group_features);
    observer_ref watching(observer);
    q.report = solve_and_refine<S::bits>(weights.view(), f, q.view(), options, watching, grid);
    return q;
}

/// The same from the Hessian itself, on any backend. `grid` and `order` may be left out where they have no state.
template <Scheme S, ReadableMatrix M, Backend H, Backend B = H, FactorPath<B> P = inverse_free_path,
          class O = no_observer>
requires Observer<std::remove_reference_t<O>> quantized<S> quantize(const M& W, const basic_hessian<H>& h,
                                                                    const quantize_options& options, const B& backend,
                                                                    const P& path = {}, O&& observer = {},
                                                                    const typename S::grid& grid = {},
                                                                    const typename S::order& order = {}) {
    return quantize<S>(W, factorize<S>(h, options, backend, path, order), options, std::forward<O>(observer), grid);
}

/// The same on the Hessian's own backend.
template <Scheme S, ReadableMatrix M, Backend H>
quantized<S> quantize(const M& W, const basic_hessian<H>& h, const quantize_options& options = {}) {
    return quantize<S>(W, factorize<S>(h, options), options);
}

/// Rounds every weight to the nearest value of its group's grid; groups are runs of the original columns whatever S's
/// order. Throws as quantize(), and option_error for options that rounding does not use.
template <Scheme S, ReadableMatrix M, Backend B = cpu_backend>
quantized<S> round_to_nearest(const M& W, const quantize_options& options = {}, const B& backend = {},
                              const typename S::grid& grid = {}) {
    check_rounding_options(options);
    const readable_matrix<float, M> weights(W, "weights");
    const std::size_t K = weights.view().cols;
    const std::size_t group_features = detail::features_of<typename S::group>(K, options.group_size);
    quantized<S> q;
    allocate(q, weights.view().rows, K, group_features);
    round_to_nearest_into<S::bits>(backend, weights.view(), group_features, q.view(), grid);
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
