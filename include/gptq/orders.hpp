// Ordering policies: in which order the columns of a layer are quantized.
#pragma once

#include <algorithm>
#include <cstddef>
#include <numeric>
#include <span>
#include <vector>

namespace gptq {

/// order[p] is the column (input feature) that is quantized as the p-th.
using column_order = std::vector<std::size_t>;

namespace detail {

inline column_order identity_order(std::size_t n) {
    column_order order(n);
    std::iota(order.begin(), order.end(), std::size_t{0});
    return order;
}

/// Columns by falling diagonal; equal diagonals keep their order.
inline void sort_by_diagonal(std::span<std::size_t> columns, std::span<const float> diag) {
    std::stable_sort(columns.begin(), columns.end(),
                     [diag](std::size_t a, std::size_t b) { return diag[a] > diag[b]; });
}

}  // namespace detail

/// Left to right, as in the paper.
struct natural_order {
    static constexpr bool groups_follow_order = false;  ///< groups are runs of the original columns
    static constexpr bool static_groups = false;        ///< grids are fitted when the loop reaches their group
    column_order operator()(std::span<const float> diag, std::size_t /*group_features*/) const {
        return detail::identity_order(diag.size());
    }
};

/// Falling diagonal of the Hessian (`desc_act`); groups are runs of the permuted columns, so the result needs its
/// g_idx.
struct act_order {
    static constexpr bool groups_follow_order = true;  ///< groups are runs of the permuted columns
    static constexpr bool static_groups = false;       ///< grids are fitted when the loop arrives
    column_order operator()(std::span<const float> diag, std::size_t /*group_features*/) const {
        auto order = detail::identity_order(diag.size());
        detail::sort_by_diagonal(order, diag);
        return order;
    }
};

/// Falling diagonal, but the groups are runs of the original columns and their grids are fitted before the loop starts.
struct act_order_static {
    static constexpr bool groups_follow_order = false;  ///< groups are runs of the original columns
    static constexpr bool static_groups = true;         ///< grids are fitted before the loop
    column_order operator()(std::span<const float> diag, std::size_t group_features) const {
        return act_order{}(diag, group_features);
    }
};

/// Group-aware reordering (GAR): columns by falling diagonal within each original group, whole groups by their largest
/// diagonal; a short last group stays last. Inference needs no g_idx. (arXiv 2505.14638)
struct group_aware_order {
    static constexpr bool groups_follow_order = false;  ///< groups are runs of the original columns
    static constexpr bool static_groups = false;        ///< grids are fitted when the loop arrives
    column_order operator()(std::span<const float> diag, std::size_t group_features) const {
        column_order sorted = detail::identity_order(diag.size());
        for (std::size_t first = 0; first < diag.size(); first += group_features)
            detail::sort_by_diagonal(std::span(sorted).subspan(first, std::min(group_features, diag.size() - first)),
                                     diag);
        std::vector<std::size_t> leaders;  // the first column of each whole group, which has its largest diagonal
        for (std::size_t first = 0; first + group_features <= diag.size(); first += group_features)
            leaders.push_back(sorted[first]);
        detail::sort_by_diagonal(leaders, diag);
        column_order order;
        order.reserve(diag.size());
        for (const std::size_t leader : leaders)
            for (std::size_t i = 0; i < group_features; ++i)
                order.push_back(sorted[leader / group_features * group_features + i]);
        for (std::size_t p = order.size(); p < diag.size(); ++p) order.push_back(sorted[p]);
        return order;
    }
};

}  // namespace gptq
