// Every kind of scheme, and the loss that the solver minimizes, computed the long way.
#pragma once

#include <cstddef>

#include <gptq/gptq.hpp>

#include "support/sanitized.hpp"

namespace gptq_test {

/// Sanitizers make tests of every scheme take minutes, and find what they find in a few.
#ifdef GPTQ_TEST_SANITIZED
inline constexpr bool all_schemes = false;
#else
inline constexpr bool all_schemes = true;
#endif

/// Calls visit.template operator()<S>() for schemes of all orders, with bits and grids of every kind.
template <class Visitor>
void for_each_scheme(const Visitor& visit) {
    const auto over_orders = [&]<int Bits, class Grid>() {
        using group = gptq::group_size<gptq::dynamic>;
        visit.template operator()<gptq::scheme<Bits, group, Grid, gptq::natural_order>>();
        visit.template operator()<gptq::scheme<Bits, group, Grid, gptq::act_order>>();
        visit.template operator()<gptq::scheme<Bits, group, Grid, gptq::act_order_static>>();
        visit.template operator()<gptq::scheme<Bits, group, Grid, gptq::group_aware_order>>();
    };
    over_orders.template operator()<3, gptq::symmetric>();
    over_orders.template operator()<2, gptq::searched_by_loss<gptq::asymmetric_from_one>>();
    if constexpr (all_schemes) {
        over_orders.template operator()<2, gptq::asymmetric>();
        over_orders.template operator()<4, gptq::symmetric>();
        over_orders.template operator()<4, gptq::asymmetric_from_one>();
        over_orders.template operator()<8, gptq::asymmetric>();
        over_orders.template operator()<3, gptq::searched<gptq::asymmetric>>();
        over_orders.template operator()<4, gptq::searched_by_loss<gptq::symmetric>>();
    }
}

/// tr(D (H + damp I) D') in double, H from its upper triangle.
template <gptq::Backend B>
double damped_error(gptq::matrix_view<const float> W, const gptq::tensor2<float>& Q, const gptq::basic_hessian<B>& h,
                    double damp) {
    double total = 0.0;
    for (std::size_t n = 0; n < W.rows; ++n)
        for (std::size_t i = 0; i < W.cols; ++i)
            for (std::size_t j = 0; j < W.cols; ++j) {
                const double H = double{i <= j ? h.upper()(i, j) : h.upper()(j, i)} + (i == j ? damp : 0.0);
                total += (double{W(n, i)} - double{Q(n, i)}) * H * (double{W(n, j)} - double{Q(n, j)});
            }
    return total;
}

/// The mean of H's diagonal.
template <gptq::Backend B>
double mean_diagonal(const gptq::basic_hessian<B>& h) {
    double mean = 0.0;
    for (std::size_t k = 0; k < h.in_features(); ++k) mean += double{h.upper()(k, k)};
    return mean / static_cast<double>(h.in_features());
}

}  // namespace gptq_test
