// ModelBackend: where a whole model lives and who computes it. The sibling of Backend in <gptq/concepts.hpp>.
#pragma once

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <span>
#include <type_traits>
#include <utility>
#include <vector>

#include <gptq/concepts.hpp>
#include <gptq/matrix_view.hpp>
#include <gptq/model/architecture.hpp>
#include <gptq/model/attention_shape.hpp>
#include <gptq/model/norm_layer.hpp>
#include <gptq/model/stored_layer.hpp>
#include <gptq/model/table.hpp>

namespace gptq::model {

/// A linear layer in the memory of a backend, and where its outputs go.
template <class Weights, class Number>
struct linear_output {
    const Weights& layer;
    matrix_view<Number> y;  ///< [tokens, out_features]
};

template <class B>
using output_of = linear_output<typename B::weights, typename B::activation>;

/// The backend that quantizes in the memory of model backend B.
template <class B>
using solver_of = std::remove_cvref_t<decltype(std::declval<const B&>().solver())>;

/// An owning matrix in the memory of model backend B.
template <class B, class T>
using room_of = decltype(std::declval<const B&>().template room<T>(0, 0));

/// A host matrix of float in the memory of model backend B.
template <class B>
using uploaded = decltype(std::declval<const B&>().upload(matrix_view<const float>()));

// ---------------------------------------------------------------------------------------------------------------------
// ModelBackend<B>: what a decoder's blocks are computed with. Views are of B's memory unless "host" is said; a row is a
// token. States, which run past the blocks, are float.
//  1. B::activation, one of float, half and bfloat16, is what linear layers read and write.
//  2. solver() is the Backend that quantizes in the same memory: its views and B's are of one kind.
//  3. room<T>(r, c).view() is a matrix whose elements are not set, for float and B::activation. upload(host) is a copy of
//     a host matrix of float; read(mine, host) copies a matrix of float or B::activation out.
//  4. hold(stored_layer), hold(norm_layer) and hold(table) make B::weights, B::norm and B::table of what the files have.
//     B::weights is default-constructible as no layer, and converts to whether there is one.
//  5. multiply(x, outputs): y = x W' + terms + bias for each output, of a span, all with the same x.
//                                                                                     x [T, K]  W [N, K]  y [T, N]
//     multiply(x, w, logits), w being weights or a table, likewise to float.
//  6. add_product(x, w, norm, scratch, states): states += norm(x W' + terms + bias); norm may be null for none.
//  7. normalize(norm, x, y): y = norm of each row of x, for float to float, float to activation, and activation to
//     activation; y may be x where the numbers are alike. convert(x, y): float or activation to activation.
//  8. rotate(cosines, sines, heads, x): turns the n pairs of features of each head that heads.pair(i, n) names, i < n;
//     row r by the angles of row r % cosines.rows.          cosines, sines [positions, n]  x [tokens, heads * head_dim]
//  9. attend(shape, q, k, v, scratch, out): out = softmax(cap(scale q k'), causal) v for each head.
//                                                   q, out [windows * queries, heads * head_dim]  k, v [windows * keys, ...]
// 10. activate(f, x): x = f(x). gate(f, x, y): x = f(x) y, element by element. cap(c, x): x = c tanh(x / c), of float.
// 11. look_up(table, ids, factor, states): states(t, :) = factor table(ids[t], :), the ids in host memory and in range.
//     add(states, terms): states(r, :) += terms(r % terms.rows, :), both float.
// 12. negative_log_likelihoods(logits, targets) is -log softmax(logits(r, :))[targets[r]] for each row; host targets.
// 13. floats(w).view() shows dense weights to the solver, [N, K]; replace(w, W) puts the solver's W in their place.
// 14. add_tokens(h, x) adds inputs to a Hessian of solver(), add_tokens(d, pair) to a drift. They throw non_finite_error
//     for NaN and infinity, or leave a Hessian whose diagonal has them.
// 15. branch_tokens is how many tokens' intermediate features are held at a time, attention_tokens how many tokens'
//     queries, but for one window. B::scratch is memory that calls may use, default-constructible, for one thread.
// 16. beside_host tells whether the host is free while calls compute, so that reading and writing go on beside them.
// 17. gather(x, rows, y): y(i, :) = x(rows[i], :), of activation. scatter_add(y, rows, shares, states):
//     states(rows[i], :) += shares[i] y(i, :), no row twice. rows and shares are in host memory, rows in range.
// 18. A call's results are visible to the next call. Rows do not depend on the other rows of a call but for rounding.
// ---------------------------------------------------------------------------------------------------------------------
template <class B>
concept ModelBackend = Backend<solver_of<B>> &&
    requires(const B& b, std::size_t n, matrix_view<float> states, matrix_view<const float> floats,
             matrix_view<typename B::activation> y, matrix_view<const typename B::activation> x, typename B::weights w,
             const typename B::norm& norm, const typename B::table& tokens, typename B::scratch& scratch,
             std::span<const std::int32_t> ids, std::span<const float> shares, attention_shape shape, mlp_activation f,
             stored_layer layer, norm_layer stored_norm, table stored_table) {
    { b.template room<float>(n, n).view() } -> std::same_as<matrix_view<float>>;
    { b.template room<typename B::activation>(n, n).view() } -> std::same_as<matrix_view<typename B::activation>>;
    { b.upload(floats).view() } -> std::convertible_to<matrix_view<const float>>;
    b.read(floats, states);
    b.read(x, states);
    { b.hold(std::move(layer)) } -> std::same_as<typename B::weights>;
    { b.hold(std::move(stored_norm)) } -> std::same_as<typename B::norm>;
    { b.hold(std::move(stored_table)) } -> std::same_as<typename B::table>;
    b.multiply(x, std::span<const output_of<B>>());
    b.multiply(x, w, states);
    b.multiply(x, tokens, states);
    b.add_product(x, w, &norm, scratch, states);
    b.normalize(norm, floats, states);
    b.normalize(norm, floats, y);
    b.normalize(norm, x, y);
    b.convert(floats, y);
    b.convert(x, y);
    b.rotate(floats, floats, rotary_heads{n}, y);
    b.attend(shape, x, x, x, scratch, y);
    b.activate(f, y);
    b.gate(f, y, x);
    b.cap(1.0f, states);
    b.look_up(tokens, ids, 1.0f, states);
    b.add(states, floats);
    b.gather(x, ids, y);
    b.scatter_add(x, ids, shares, states);
    { b.negative_log_likelihoods(floats, ids) } -> std::same_as<std::vector<double>>;
    { b.floats(w).view() } -> std::convertible_to<matrix_view<const float>>;
    b.replace(w, floats);
    { B::branch_tokens } -> std::convertible_to<std::size_t>;
    { B::attention_tokens } -> std::convertible_to<std::size_t>;
    { B::beside_host } -> std::convertible_to<bool>;
};

}  // namespace gptq::model
