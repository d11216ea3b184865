// From the Hessian to what the solver's loop needs: columns in their order, damping, and the two Cholesky paths.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <numeric>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <gptq/concepts.hpp>
#include <gptq/damping.hpp>
#include <gptq/error.hpp>
#include <gptq/finite.hpp>
#include <gptq/groups.hpp>
#include <gptq/held_layer.hpp>
#include <gptq/matrix_view.hpp>
#include <gptq/options.hpp>
#include <gptq/orders.hpp>

namespace gptq {

namespace detail {

struct add_row {
    matrix_view<const float> from;
    matrix_view<float> to;
    constexpr void operator()(std::size_t r) const noexcept {
        for (std::size_t c = 0; c < to.cols; ++c) to(r, c) += from(r, c);
    }
};

struct copy_diagonal {
    matrix_view<const float> H;  // [K, K]
    matrix_view<float> diag;     // [1, K]
    constexpr void operator()(std::size_t k) const noexcept { diag(0, k) = H(k, k); }
};

/// The diagonal of a matrix in the backend's memory, on the host.                                         H [K, K]
template <Backend B>
std::vector<float> download_diagonal(const B& backend, matrix_view<const float> H) {
    auto diag = backend.template make_matrix<float>(1, H.rows);
    backend.for_each_row(H.rows, copy_diagonal{H, diag.view()});
    std::vector<float> out(H.rows);
    backend.download(diag.view(), matrix_view<float>(out.data(), 1, out.size()));
    return out;
}

/// Row 0: 1/U[k,k]^2 from a factor F with U[k,k] = 1/F[k,k] (Inverted) or F[k,k].
template <bool Inverted>
struct pivot_costs {
    matrix_view<const float> F;  // [K, K]
    matrix_view<float> costs;    // [1, K]
    constexpr void operator()(std::size_t) const noexcept {
        for (std::size_t k = 0; k < costs.cols; ++k)
            costs(0, k) = Inverted ? F(k, k) * F(k, k) : 1.0f / (F(k, k) * F(k, k));
    }
};

/// Row r of a matrix of equal elements.
struct fill_row {
    matrix_view<float> to;
    float value;
    constexpr void operator()(std::size_t r) const noexcept {
        for (float& x : to.row(r)) x = value;
    }
};

struct identity_row {
    matrix_view<float> to;
    constexpr void operator()(std::size_t r) const noexcept {
        for (std::size_t c = 0; c < to.cols; ++c) to(r, c) = r == c ? 1.0f : 0.0f;
    }
};

}  // namespace detail

/// The default path: H = A A' with A upper triangular, one Cholesky and no inverse. U = A^-1 is never formed; with
/// D = W - Q, a block of columns g sees the errors before it as  W_g + (D_<g A_<g,g) A_gg^-1,  and U_gg = A_gg^-1.
/// Until a block is quantized, its columns of S hold the part of D_<g A_<g,g that is summed up so far.
/// Factoring takes K^3/3 flops. A nearly singular H needs far less damping than in the paper's path.
struct inverse_free_path {
    template <Backend B>
    bool factor(const B& backend, matrix_view<float> H) const {
        return backend.factor_upper(H);
    }
    template <Backend B>
    void enter(const B& backend, matrix_view<const float> A, matrix_view<const float> W, std::size_t first,
               matrix_view<float> S) const {
        if (first == 0) return backend.for_each_row(W.rows, detail::fill_row{S, 0.0f});
        backend.multiply(S, W.columns(0, first), A.block(0, first, first, S.cols), 1.0f, 0.0f);
    }
    template <Backend B>
    void current(const B& backend, matrix_view<const float> A, matrix_view<const float> W, std::size_t first,
                 matrix_view<float> S, std::size_t begin, std::size_t end) const {
        const matrix_view<float> T = S.columns(begin - first, end - first);
        if (begin == 0) return backend.for_each_row(W.rows, detail::copy_row{W.columns(0, end), T});  // no errors yet
        if (begin > first)
            backend.multiply(T, W.columns(first, begin), A.block(first, begin - first, begin, T.cols), 1.0f, 1.0f);
        backend.solve_upper_right(T, A.block(begin, T.cols, begin, T.cols));
        backend.for_each_row(W.rows, detail::add_row{W.columns(begin, end), T});
    }
    template <Backend B>
    void diagonal_block(const B& backend, matrix_view<const float> A, std::size_t first, std::size_t last,
                        matrix_view<float> U) const {
        backend.for_each_row(U.rows, detail::identity_row{U});
        backend.solve_upper_right(U, A.block(first, last - first, first, last - first));
    }
    template <Backend B>
    void leave(const B&, matrix_view<const float>, matrix_view<float>, std::size_t, matrix_view<const float>) const {
    }  // nothing to do: enter and current compute from D = W - Q, which W holds
    template <Backend B>
    void column_costs(const B& backend, matrix_view<const float> A, matrix_view<float> costs) const {
        backend.for_each_row(1, detail::pivot_costs<true>{A, costs});
    }
    template <Backend B>
    void hessian_factor(const B& backend, matrix_view<const float> A, matrix_view<float> out) const {
        backend.for_each_row(A.rows, detail::copy_row{A, out});
    }
};

/// The paper's path: Cholesky of H, its inverse, Cholesky of that: U with U'U = H^-1. 4/3 K^3 flops to factor.
struct paper_path {
    template <Backend B>
    bool factor(const B& backend, matrix_view<float> H) const {
        return backend.inverse_factor_upper(H);
    }
    template <Backend B>
    void enter(const B& backend, matrix_view<const float>, matrix_view<const float> W, std::size_t first,
               matrix_view<float> S) const {
        backend.for_each_row(W.rows, detail::copy_row{W.columns(first, first + S.cols), S});
    }
    /// T -= Err U[first:begin, begin:end)
    template <Backend B>
    void current(const B& backend, matrix_view<const float> F, matrix_view<const float>, std::size_t first,
                 matrix_view<float> S, std::size_t begin, std::size_t end) const {
        if (begin == first) return;
        backend.multiply(S.columns(begin - first, end - first), S.columns(0, begin - first),
                         F.block(first, begin - first, begin, end - begin), -1.0f, 1.0f);
    }
    template <Backend B>
    void diagonal_block(const B& backend, matrix_view<const float> F, std::size_t first, std::size_t last,
                        matrix_view<float> U) const {
        backend.for_each_row(U.rows, detail::copy_row{F.block(first, last - first, first, last - first), U});
    }
    /// W[:, last:) -= Err U[first:last, last:)
    template <Backend B>
    void leave(const B& backend, matrix_view<const float> F, matrix_view<float> W, std::size_t first,
               matrix_view<const float> Err) const {
        const std::size_t last = first + Err.cols, rest = W.cols - last;
        if (rest == 0) return;
        backend.multiply(W.columns(last, W.cols), Err, F.block(first, Err.cols, last, rest), -1.0f, 1.0f);
    }
    template <Backend B>
    void column_costs(const B& backend, matrix_view<const float> U, matrix_view<float> costs) const {
        backend.for_each_row(1, detail::pivot_costs<false>{U, costs});
    }
    template <Backend B>
    void hessian_factor(const B& backend, matrix_view<const float> U, matrix_view<float> out) const {
        backend.for_each_row(U.rows, detail::identity_row{out});
        backend.solve_upper_right(out, U);  // A = U^-1
    }
};

/// A Hessian made ready for a layer's solver: shared by every layer with this input, order and group size.
template <Backend B, FactorPath<B> P>
struct factored_hessian {
    using memory = decltype(std::declval<const B&>().template make_matrix<float>(0, 0));

    B backend;
    P path;
    memory factor;                           ///< [K, K], as the path left it; columns in `order`
    memory costs;                            ///< [1, K], position -> 1/U[k,k]^2: the loss of a unit error in the loop
    column_order order = {};                 ///< [K], position -> original column
    std::vector<std::size_t> group_at = {};  ///< [K], position -> group
    std::size_t dead_inputs = 0;             ///< inputs that were always 0
    std::size_t group_features = 0;          ///< input features per full group
    bool static_groups = false;              ///< fit grids before the loop
    std::string order_name;                  ///< the type of the order
    quantize_options options = {};           ///< what it was made with
    bool positive_definite = false;  ///< false: no damping helped, or all inputs are dead; round to nearest instead
    double shrinkage = 0.0;          ///< the share that elements beside H's diagonal lost, see <gptq/evidence.hpp>
    std::optional<memory> measured = {};  ///< [K, K], H as it was measured, where shrinkage is not 0
    double damp_percent = 0.0;            ///< the damping that it was factored with
    int failed_factorizations = 0;        ///< how many smaller dampings failed before

    std::size_t in_features() const { return order.size(); }
};

/// The argument of Backend's optional permute_hessian: F becomes the upper triangle of H, its rows and columns in
/// another order, with damping added to the diagonal. The elements below F's diagonal do not change.
struct hessian_permutation {
    matrix_view<const float> H;               ///< [K, K], upper triangle
    matrix_view<float> F;                     ///< [K, K]
    matrix_view<const std::size_t> order;     ///< [1, K], position -> feature
    matrix_view<const std::size_t> position;  ///< [1, K], feature -> position
    float damp;                               ///< 0 or more
    float coupling = 1.0f;                    ///< what the elements beside the diagonal are multiplied by

    /// The elements of feature i in the columns [begin, end) of F.
    constexpr void place(std::size_t i, std::size_t begin, std::size_t end) const {
        const std::size_t p = position(0, i);
        if (begin <= p && p < end) F(p, p) = damped(H(i, i));
        for (std::size_t s = std::max(begin, p + 1); s < end; ++s) {
            const std::size_t j = order(0, s);
            F(p, s) = coupling * (i < j ? H(i, j) : H(j, i));
        }
    }

 private:
    /// The diagonal element of an input that was always 0 is the damping alone. Its weights are rounded to nearest, and
    /// count little for grids and the loss. Without damping it is an arbitrary positive number.
    constexpr float damped(float h) const { return h == 0.0f && damp == 0.0f ? 1.0f : h + damp; }
};

namespace detail {

/// Places a few neighbouring features at a time, piece by piece. Elements below the diagonal are read from columns of
/// H, and neighbouring columns share cache lines.
struct place_features {
    static constexpr std::size_t together = 16, piece = 64;
    hessian_permutation permutation;

    constexpr void operator()(std::size_t run) const noexcept {
        const std::size_t K = permutation.H.rows, first = run * together, last = std::min(first + together, K);
        for (std::size_t begin = 0; begin < K; begin += piece)
            for (std::size_t i = first; i < last; ++i) permutation.place(i, begin, std::min(begin + piece, K));
    }
};

template <Backend B>
void permute_hessian(const B& backend, const hessian_permutation& permutation) {
    constexpr std::size_t together = place_features::together;
    if constexpr (requires { backend.permute_hessian(permutation); })
        backend.permute_hessian(permutation);
    else
        backend.for_each_row((permutation.H.rows + together - 1) / together, place_features{permutation});
}

/// The name of a type as the compiler spells it, for messages and comparisons without RTTI.
template <class T>
std::string type_name() {
    const std::string text = __PRETTY_FUNCTION__;
    const std::size_t first = text.find("T = ") + 4;
    return text.substr(first, text.find_first_of(";]", first) - first);
}

/// Throws concept_error unless `order` is a permutation of 0 .. K-1.
inline void check_permutation(const column_order& order, std::size_t K) {
    const auto refuse = [](const std::string& what) { throw concept_error("OrderingPolicy 1: " + what); };
    if (order.size() != K)
        refuse("the order has " + std::to_string(order.size()) + " columns, the layer " + std::to_string(K));
    std::vector<bool> seen(K);
    for (std::size_t p = 0; p < K; ++p) {
        const bool is_column = order[p] < K;
        if (!is_column || seen[order[p]])
            refuse("order[" + std::to_string(p) + "] is " + std::to_string(order[p]) +
                   (is_column ? ", which came before" : ", but there are " + std::to_string(K) + " columns"));
        seen[order[p]] = true;
    }
}

/// Throws concept_error unless groups are neighbours, a short one last.                                    group_at [K]
inline void check_neighbours(const std::vector<std::size_t>& group_at, std::size_t group_features) {
    for (std::size_t p = 0; p < group_at.size(); ++p)
        if (group_at[p] != group_at[p / group_features * group_features])
            throw concept_error("OrderingPolicy 3: position " + std::to_string(p) +
                                " of the order is a column of group " + std::to_string(group_at[p]) +
                                ", but the columns of a group of " + std::to_string(group_features) +
                                " must be neighbours, unless static_groups or groups_follow_order is true");
}

}  // namespace detail

namespace detail {

/// The diagonal of H [K, K], which is in the backend's memory. Throws non_finite_error where its sums overflowed.
template <Backend B>
std::vector<float> finite_diagonal(const B& backend, matrix_view<const float> H) {
    std::vector<float> diag = download_diagonal(backend, H);
    require_finite(matrix_view<const float>(diag.data(), 1, diag.size()), "hessian: the sum of squares overflowed",
                   "row", "feature");
    return diag;
}

/// position -> group, for columns in this order.                                                                 [K]
template <class Order>
std::vector<std::size_t> groups_at(const column_order& order, std::size_t group_features) {
    std::vector<std::size_t> groups(order.size());
    for (std::size_t p = 0; p < order.size(); ++p)
        groups[p] = (Order::groups_follow_order ? p : order[p]) / group_features;
    return groups;
}

/// Sets f.order and f.group_at to what `order` says for a Hessian with this diagonal. Throws concept_error where
/// `order` breaks its promises.
template <class Order, class Factored>
void order_columns(Factored& f, const Order& order, std::span<const float> diag) {
    const std::size_t K = diag.size();
    f.order = order(diag, f.group_features);
    check_permutation(f.order, K);
    f.group_at = groups_at<Order>(f.order, f.group_features);
    if (!Order::static_groups) check_neighbours(f.group_at, f.group_features);
}

/// Tries one damping after the other, from `damp` on, until one makes H positive definite. `mean` is the mean of H's
/// diagonal.
template <Backend B, class P>
void factor_damped(factored_hessian<B, P>& f, matrix_view<const float> H, double damp, double growth, double mean) {
    const B& backend = f.backend;
    const std::size_t K = H.rows;
    std::vector<std::size_t> position(K);
    for (std::size_t p = 0; p < K; ++p) position[f.order[p]] = p;
    const auto lent_order = backend.lend(matrix_view<const std::size_t>(f.order.data(), 1, K));
    const auto lent_position = backend.lend(matrix_view<const std::size_t>(position.data(), 1, K));
    for (; damp <= 1.0; damp = std::max(damp, 1e-4) * growth) {
        f.damp_percent = damp;
        permute_hessian(backend,
                        hessian_permutation{H, f.factor.view(), lent_order.view(), lent_position.view(),
                                            static_cast<float>(damp * mean), static_cast<float>(1.0 - f.shrinkage)});
        f.positive_definite = f.path.factor(backend, f.factor.view());
        if (f.positive_definite) return f.path.column_costs(backend, f.factor.view(), f.costs.view());
        ++f.failed_factorizations;
    }
}

}  // namespace detail

/// For factor_hessian: says that there are at least as many tokens as inputs.
inline constexpr std::size_t enough_tokens = std::numeric_limits<std::size_t>::max();

namespace detail {

/// Shrinks the elements beside H's diagonal where there are fewer tokens than inputs: see <gptq/evidence.hpp>.
template <Backend B, class P>
void shrink(factored_hessian<B, P>& f, matrix_view<const float> H, std::size_t tokens) {
    const std::size_t K = H.rows;
    if (tokens >= K) return;
    f.shrinkage = 0.5 * static_cast<double>(K) / static_cast<double>(K + tokens);
    f.measured.emplace(f.backend.template make_matrix<float>(K, K));
    f.backend.for_each_row(K, copy_row{H, f.measured->view()});
}

}  // namespace detail

/// Orders the columns of H, damps (see damping.hpp) and factors it. Where it is not positive definite, damping grows by
/// options.damp_growth up to 1; the result has the last damping, and says whether it helped. Where all inputs were
/// always 0 there is nothing to factor, and layers are rounded to nearest. `group_features` is the size of a full
/// group. H: [K, K] in the backend's memory, upper triangle, the mean over `tokens` tokens. It reads the options of
/// damping alone; the largest damping is 1. Throws option_error for options out of range, non_finite_error where the
/// Hessian's sums overflowed, concept_error for an order that is no permutation.
template <OrderingPolicy Order, Backend B, FactorPath<B> P = inverse_free_path>
factored_hessian<B, P> factor_hessian(const B& backend, matrix_view<const float> H, std::size_t group_features,
                                      const quantize_options& options = {}, const P& path = {}, const Order& order = {},
                                      std::size_t tokens = enough_tokens) {
    const std::size_t K = H.rows;
    if (!(options.damp_percent >= 0.0 && options.damp_percent <= 1.0 && options.damp_growth > 1.0))
        throw option_error("damp_percent: not between 0 and 1, or a damp_growth that is not more than 1");
    if (group_features == 0 || group_features > K)
        throw option_error("group_features: " + std::to_string(group_features) + " for " + std::to_string(K) +
                           " inputs");
    std::vector<float> diag = detail::finite_diagonal(backend, H);
    const double damp = options.choose_damping ? automatic_damping(diag) : options.damp_percent;
    factored_hessian<B, P> f{.backend = backend,
                             .path = path,
                             .factor = backend.template make_matrix<float>(K, K),
                             .costs = backend.template make_matrix<float>(1, K),
                             .group_features = group_features,
                             .static_groups = Order::static_groups,
                             .order_name = detail::type_name<Order>(),
                             .options = options,
                             .damp_percent = damp};
    f.dead_inputs = static_cast<std::size_t>(std::count(diag.begin(), diag.end(), 0.0f));
    std::replace(diag.begin(), diag.end(), 0.0f, 1.0f);
    detail::order_columns(f, order, diag);
    const double mean = std::accumulate(diag.begin(), diag.end(), 0.0) / static_cast<double>(K);
    detail::shrink(f, H, tokens);
    if (f.dead_inputs < K) detail::factor_damped(f, H, damp, options.damp_growth, mean);
    return f;
}

}  // namespace gptq
