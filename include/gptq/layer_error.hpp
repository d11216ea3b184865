// The error that quantization leaves in a layer's outputs, measured on its calibration inputs.
#pragma once

#include <algorithm>
#include <cstddef>
#include <numeric>
#include <vector>

#include <gptq/concepts.hpp>
#include <gptq/error.hpp>
#include <gptq/fold.hpp>
#include <gptq/held_layer.hpp>
#include <gptq/hessian.hpp>
#include <gptq/matrix_view.hpp>

namespace gptq {

namespace detail {

/// Row i of some columns of the strict upper triangle of H plus half its diagonal: M with M + M' = H.
struct half_row {
    matrix_view<const float> H;  // [K, K], upper triangle
    matrix_view<float> M;        // [K, n], columns [first, first + n)
    std::size_t first;
    constexpr void operator()(std::size_t i) const noexcept {
        const std::size_t diagonal = std::min(std::max(i, first) - first, M.cols);
        std::size_t j = 0;
        for (; j < diagonal; ++j) M(i, j) = 0.0f;
        if (i >= first && j < M.cols) M(i, j++) = 0.5f * H(i, i);
        for (; j < M.cols; ++j) M(i, j) = H(i, first + j);
    }
};

struct dot_row {
    matrix_view<const float> a, b;  // [N, K]
    matrix_view<double> out;        // [N, 1]
    constexpr void operator()(std::size_t r) const noexcept {
        const auto x = a.row(r), y = b.row(r);
        out(r, 0) = sum(x.size(), [x, y](std::size_t c) { return double{x[c]} * double{y[c]}; });
    }
};

/// The sum of a column in the backend's memory.                                                                [N, 1]
template <Backend B>
double total(const B& backend, matrix_view<const double> column) {
    std::vector<double> values(column.rows);
    backend.download(column, matrix_view<double>(values.data(), values.size(), 1));
    return std::accumulate(values.begin(), values.end(), 0.0);
}

/// The sum of a(r, c) b(r, c), in double.
template <Backend B>
double inner_product(const B& backend, matrix_view<const float> a, matrix_view<const float> b) {
    auto sums = backend.template make_matrix<double>(a.rows, 1);
    backend.for_each_row(a.rows, dot_row{a, b, sums.view()});
    return total(backend, sums.view());
}

/// tr(D H D') for H from its upper triangle, whose zeros are left out, some columns at a time. D [N, K]  H [K, K]
template <Backend B>
double weighted_squares(const B& backend, matrix_view<const float> D, matrix_view<const float> H) {
    constexpr std::size_t most = 512;  // fewer at a time: fewer zeros, but D is packed for a product more often
    const std::size_t K = D.cols, parts = (K + most - 1) / most, together = (K + parts - 1) / parts;
    auto M = backend.template make_matrix<float>(K, together);
    auto DM = backend.template make_matrix<float>(D.rows, together);
    double squares = 0.0;
    for (std::size_t first = 0; first < K; first += together) {
        const std::size_t count = std::min(together, K - first), rows = first + count;
        const auto m = M.view().block(0, rows, 0, count), dm = DM.view().columns(0, count);
        backend.for_each_row(rows, half_row{H, m, first});
        backend.multiply(dm, D.columns(0, rows), m, 1.0f, 0.0f);
        squares += 2.0 * inner_product(backend, D.columns(first, rows), dm);
    }
    return squares;
}

}  // namespace detail

/// tr(D H D'), H undamped: the mean over the calibration tokens of twice the squared error of the layer's outputs.
/// D: the difference of the weights, [N, K] in the backend's memory. Cost: 1 to 2 N K^2 flops. Throws shape_error where
/// K differs.
template <Backend B>
double output_error(in_backend_t, matrix_view<const float> D, const basic_hessian<B>& h) {
    if (D.cols != h.in_features())
        throw shape_error("layer_error: weights " + shape_string(D.rows, D.cols) + " and a Hessian of " +
                          std::to_string(h.in_features()) + " features");
    return detail::weighted_squares(h.backend(), D, h.upper());
}

/// The same for D in host memory.
template <Backend B>
double output_error(matrix_view<const float> D, const basic_hessian<B>& h) {
    return output_error(in_backend, h.backend().lend(D).view(), h);
}

}  // namespace gptq
