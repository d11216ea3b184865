// A product of one's own: everything that a runtime needs of a quantized layer is in four arrays.
#include <cmath>
#include <cstddef>
#include <iostream>
#include <vector>

#include <gptq/gptq.hpp>

#include "check.hpp"
#include "random_layer.hpp"

/// y = Wq x for one token: integers are summed up group by group, and every group is scaled once.
///   y[n] = sum over groups g of  scales(n, g) * sum over the k of g of  (codes(n, k) - zeros(n, g)) * x[k]
std::vector<float> multiply(const gptq::quantized_layer& q, const float* x) {
    std::vector<float> y(q.out_features());
    for (std::size_t n = 0; n < q.out_features(); ++n) {
        std::vector<float> sums(q.groups());
        for (std::size_t k = 0; k < q.in_features(); ++k) {
            const auto g = static_cast<std::size_t>(q.g_idx(k));
            sums[g] += static_cast<float>(q.codes(n, k) - q.zeros(n, g)) * x[k];
        }
        for (std::size_t g = 0; g < q.groups(); ++g) y[n] += q.scales(n, g) * sums[g];
    }
    return y;
}

int main() {
    using w4 = gptq::scheme<4, gptq::group_size<64>, gptq::asymmetric, gptq::act_order>;
    const auto W = random_matrix(48, 256, 1), X = random_inputs(512, 256, 2);
    gptq::hessian<float> h(256);
    h.add(X);
    const auto q = gptq::quantize<w4>(W, h);

    const auto Y = gptq::matmul(X, gptq::prepare<gptq::activation::exact>(q));
    double difference = 0.0, magnitude = 0.0;
    for (std::size_t t = 0; t < 8; ++t) {
        const auto y = multiply(q, &X(t, 0));
        for (std::size_t n = 0; n < y.size(); ++n) {
            difference = std::max(difference, std::fabs(double{y[n]} - double{Y(t, n)}));
            magnitude = std::max(magnitude, std::fabs(double{Y(t, n)}));
        }
    }
    std::cout << "largest difference from gptq::matmul: " << difference << " of " << magnitude << '\n';
    check(difference <= 1e-5 * magnitude, "the same product as the library's");
}
