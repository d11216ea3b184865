// Pruning of layers in matrices of any readable type: see <gptq/prune.hpp>.
#pragma once

#include <concepts>
#include <cstddef>
#include <type_traits>

#include <gptq/backends/cpu/cpu_backend.hpp>
#include <gptq/factor.hpp>
#include <gptq/finite.hpp>
#include <gptq/held_layer.hpp>
#include <gptq/matrix_like.hpp>
#include <gptq/observer.hpp>
#include <gptq/options.hpp>
#include <gptq/prune.hpp>
#include <gptq/quantized.hpp>
#include <gptq/scheme.hpp>
#include <gptq/xtensor/adapt.hpp>
#include <gptq/xtensor/quantized.hpp>
#include <gptq/xtensor/surface.hpp>

namespace gptq {

/// A pruned layer.
struct pruned {
    tensor2<float> weights;  ///< [out_features, in_features], with zeros
    solve_report report;     ///< what happened
};

/// Prunes W [out_features, in_features] by SparseGPT with the pattern, from the factored Hessian of its inputs, on the
/// factor's backend. Of the options block_size is used. Throws shape_error where shapes do not fit, non_finite_error
/// for weights that are NaN or infinite, option_error for a pattern that is none or does not go with the factor's
/// order, and what the observer throws.
template <ReadableMatrix M, Backend B, FactorPath<B> P, class O = no_observer>
requires Observer<std::remove_reference_t<O>> pruned prune(const M& W, const factored_hessian<B, P>& f,
                                                           const sparsity_pattern& pattern,
                                                           const quantize_options& options = {}, O&& observer = {}) {
    const readable_matrix<float, M> weights(W, "weights");
    const matrix_view<const float> w = weights.view();
    detail::check_weights(w, f.in_features());
    const auto lent = f.backend.lend(w);
    auto out = f.backend.template make_matrix<float>(w.rows, w.cols);  // [N, K]
    pruned result{make_tensor2<float>(w.rows, w.cols), {}};
    result.report = prune(in_backend, lent.view(), f, out.view(), pattern, options, observer);
    f.backend.download(out.view(), view_of(result.weights));
    return result;
}

/// The same with a pattern known at compile time: prune<sparsity<2, 4>>(W, f).
template <class Pattern, ReadableMatrix M, Backend B, FactorPath<B> P, class O = no_observer>
requires Observer<std::remove_reference_t<O>> && std::same_as<decltype(Pattern::pattern), const sparsity_pattern> pruned
prune(const M& W, const factored_hessian<B, P>& f, const quantize_options& options = {}, O&& observer = {}) {
    return prune(W, f, Pattern::pattern, options, observer);
}

/// Prunes W by the size of its weights alone. Throws as prune.
template <ReadableMatrix M, Backend B = cpu_backend>
tensor2<float> prune_by_magnitude(const M& W, const sparsity_pattern& pattern, const B& backend = {}) {
    const readable_matrix<float, M> weights(W, "weights");
    const matrix_view<const float> w = weights.view();
    detail::check_weights(w, w.cols);
    const auto lent = backend.lend(w);
    auto out = backend.template make_matrix<float>(w.rows, w.cols);  // [N, K]
    prune_by_magnitude(in_backend, backend, lent.view(), pattern, out.view());
    auto result = make_tensor2<float>(w.rows, w.cols);
    backend.download(out.view(), view_of(result));
    return result;
}

/// Prunes and quantizes W in one pass with scheme S, whose grid is affine. Throws as quantize and prune, and
/// option_error for options that search for codes.
template <Scheme S, ReadableMatrix M, Backend B, FactorPath<B> P, class O = no_observer>
requires AffineGrid<typename S::grid> && Observer<std::remove_reference_t<O>> quantized<S> prune_and_quantize(
    const M& W, const factored_hessian<B, P>& f, const sparsity_pattern& pattern, const quantize_options& options = {},
    O&& observer = {}, const typename S::grid& grid = {}) {
    detail::check_factor<S>(f, options);
    const readable_matrix<float, M> weights(W, "weights");
    quantized<S> q;
    allocate(q, weights.view().rows, weights.view().cols, f.group_features);
    q.report = detail::through_host(f, weights.view(), q.view(), [&](matrix_view<const float> w, held_layer<B>& held) {
        return prune_and_quantize<S::bits>(in_backend, w, f, held, pattern, options, observer, grid);
    });
    return q;
}

}  // namespace gptq
