// The rule of GPTQ for the blocks of GGUF files, whose scales and offsets are multiples of units that a whole block
// shares: when the loop of <gptq/quantize.hpp> reaches a block, its units and multiples are fitted to the weights as
// they are then, and every weight in turn becomes the nearest of its group's values.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <gptq/column_block.hpp>
#include <gptq/concepts.hpp>
#include <gptq/error.hpp>
#include <gptq/factor.hpp>
#include <gptq/grids/ggml_fit.hpp>
#include <gptq/layouts/ggml_blocks.hpp>
#include <gptq/matrix_view.hpp>
#include <gptq/observer.hpp>
#include <gptq/options.hpp>
#include <gptq/orders.hpp>
#include <gptq/quantize.hpp>
#include <gptq/solver_state.hpp>

namespace gptq {

/// A layer [N, K] as the rows of a GGUF file have it.
struct ggml_layer {
    const layout::ggml_type* type = nullptr;
    std::size_t rows = 0, blocks = 0;  ///< blocks of a row: K / type->weights
    std::vector<std::byte> bytes;      ///< [N, blocks] blocks

    std::span<std::byte> block(std::size_t n, std::size_t b) {
        return std::span(bytes).subspan((n * blocks + b) * type->bytes, type->bytes);
    }
    std::span<const std::byte> row(std::size_t n) const {
        return std::span(bytes).subspan(n * blocks * type->bytes, blocks * type->bytes);
    }
};

/// Row r of a block of columns that begins and ends with blocks of the layer, whose columns may be in another order.
struct ggml_row {
    column_block columns;
    const std::vector<std::size_t>& order;  ///< [K], position -> column of the layer
    ggml_layer& out;

    void operator()(std::size_t r) const {
        const std::size_t weights = out.type->weights;
        for (std::size_t i = 0; i < columns.T.cols; i += weights) settle_block(r, i, weights);
    }

 private:
    /// The place in its block of the column at i.
    std::size_t place(std::size_t i) const { return order[columns.first + i] % out.type->weights; }

    void settle_block(std::size_t r, std::size_t begin, std::size_t weights) const {
        std::array<float, layout::max_ggml_weights> w{}, costs{};
        for (std::size_t i = begin; i < begin + weights; ++i) {
            w[place(i)] = columns.T(r, i);
            costs[place(i)] = columns.costs(0, i);
        }
        layout::ggml_block block =
            fit_ggml_block(*out.type, std::span(w).first(weights), std::span(costs).first(weights));
        for (std::size_t i = begin; i < begin + weights; ++i) {
            block.codes[place(i)] = ggml_code(*out.type, block, place(i), columns.T(r, i));
            columns.settle(r, i, layout::value_of(*out.type, block, place(i)));
        }
        layout::encode(*out.type, block, out.block(r, order[columns.first + begin] / weights));
    }
};

/// Quantizes W [N, K] to blocks of `type`, f being the Hessian of its inputs, factored in groups of type.weights by an
/// order that keeps them together; all in host memory, so for backends of the host. Where f is not positive definite,
/// weights are rounded to nearest. Throws shape_error where blocks do not divide the rows. Time: as solve(), and the
/// fits.
template <Backend B, FactorPath<B> P>
ggml_layer solve_ggml(const layout::ggml_type& type, matrix_view<const float> W, const factored_hessian<B, P>& f) {
    if (W.cols != f.in_features() || W.cols % type.weights != 0)
        throw shape_error(std::string(type.name) + ": has blocks of " + std::to_string(type.weights) +
                          " weights, which do not divide a row of " + std::to_string(W.cols));
    ggml_layer out{&type, W.rows, W.cols / type.weights, {}};
    out.bytes.resize(out.rows * out.blocks * type.bytes);
    if (!f.positive_definite) {
        matrix<float> alike(W.cols, W.cols);  // all inputs, and none with another
        for (std::size_t k = 0; k < W.cols; ++k) alike(k, k) = 1.0f;
        const auto lent = f.backend.lend(std::as_const(alike).view());
        return solve_ggml(type, W, factor_hessian<natural_order>(f.backend, lent.view(), type.weights));
    }
    auto ordered = detail::ordered_copy(f, W);  // [N, K]
    no_observer watching;
    solve_columns(
        f, ordered.view(), column_cuts{W.cols, std::min<std::size_t>(W.cols, layout::max_ggml_weights), type.weights},
        [&](const column_block& columns) {
            f.backend.for_each_row(W.rows, ggml_row{columns, f.order, out});
        },
        watching);
    return out;
}

/// What the layer's codes stand for.                                                                     W [N, K]
inline void dequantize_into(const ggml_layer& layer, matrix_view<float> W) {
    for (std::size_t n = 0; n < W.rows; ++n)
        for (std::size_t b = 0; b < layer.blocks; ++b) {
            const layout::ggml_block block =
                layout::decode(*layer.type, layer.row(n).subspan(b * layer.type->bytes, layer.type->bytes));
            for (std::size_t i = 0; i < layer.type->weights; ++i)
                W(n, b * layer.type->weights + i) = layout::value_of(*layer.type, block, i);
        }
}

}  // namespace gptq
