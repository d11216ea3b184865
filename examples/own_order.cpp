// An order and an activation of one's own.
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <iostream>
#include <numeric>
#include <span>
#include <vector>

#include <gptq/gptq.hpp>
#include <gptq/testing/conformance.hpp>

#include "check.hpp"
#include "random_layer.hpp"

//! [order]
/// Columns by falling diagonal of the Hessian within each group; the groups stay where they are.
struct sorted_in_groups {
    static constexpr bool groups_follow_order = false;  // group j holds the original columns j*g to (j+1)*g - 1
    static constexpr bool static_groups = false;        // its grid is fitted when the loop arrives

    std::vector<std::size_t> operator()(std::span<const float> diagonal, std::size_t group_features) const {
        std::vector<std::size_t> order(diagonal.size());
        std::iota(order.begin(), order.end(), std::size_t{0});
        const auto larger = [diagonal](std::size_t a, std::size_t b) { return diagonal[a] > diagonal[b]; };
        for (std::size_t first = 0; first < order.size(); first += group_features) {
            const std::size_t last = std::min(first + group_features, order.size());
            std::stable_sort(order.begin() + static_cast<std::ptrdiff_t>(first),
                             order.begin() + static_cast<std::ptrdiff_t>(last), larger);
        }
        return order;
    }
};

static_assert(gptq::OrderingPolicy<sorted_in_groups>);
//! [order]

//! [activation]
/// Inputs of products rounded to 12 bits.
struct twelve_bits {
    static constexpr int levels = 2047;
};

static_assert(gptq::Activation<twelve_bits>);
//! [activation]

int main() {
    check_conforms(gptq::testing::check_order<sorted_in_groups>());

    //! [use]
    using w4 = gptq::scheme<4, gptq::group_size<64>, gptq::symmetric, sorted_in_groups>;
    const auto W = random_matrix(64, 256, 1), X = random_inputs(1024, 256, 2);
    gptq::hessian<float> h(256);
    h.add(X);
    const auto q = gptq::quantize<w4>(W, h);
    const auto Y = gptq::matmul(X, gptq::prepare<twelve_bits>(q));
    //! [use]
    const auto exact = gptq::matmul(X, gptq::prepare<gptq::activation::exact>(q));
    double difference = 0.0, magnitude = 0.0;
    for (std::size_t i = 0; i < Y.size(); ++i) {
        difference = std::max(difference, double{std::abs(Y.data()[i] - exact.data()[i])});
        magnitude = std::max(magnitude, double{std::abs(exact.data()[i])});
    }
    const double error = gptq::layer_error(W, q, h);
    const double baseline = gptq::layer_error(W, gptq::round_to_nearest<w4>(W), h);
    std::cout << "error of the outputs: " << error << ", round-to-nearest: " << baseline
              << "; rounded inputs change an output by at most " << difference << " of " << magnitude << '\n';
    check(error < 0.5 * baseline, "GPTQ beats rounding in this order");
    check(difference > 0.0 && difference < 1e-3 * magnitude, "12 bits change the outputs a little");
}
