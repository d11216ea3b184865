// linear: one linear layer of a model.
#pragma once

#include <cstddef>
#include <string>

#include <gptq/backends/cpu/blas.hpp>
#include <gptq/error.hpp>
#include <gptq/matrix_view.hpp>
#include <gptq/xtensor/adapt.hpp>

namespace gptq::model {

/// Y = X · Wᵀ + bias with W [N, K].
struct linear {
    tensor2<float> weight = make_tensor2<float>(0, 0);  ///< [N, K]
    tensor1<float> bias = make_tensor1<float>(0);       ///< [N], or empty

    std::size_t out_features() const { return weight.shape()[0]; }
    std::size_t in_features() const { return weight.shape()[1]; }

    /// False for the parts that an architecture does not have (the gate of a plain MLP).
    explicit operator bool() const { return out_features() != 0; }

    /// Writes X [T, K] · Wᵀ + bias into Y [T, N]. Throws shape_error where the shapes do not fit.
    void apply(matrix_view<const float> x, matrix_view<float> y) const {
        if (x.cols != in_features() || y.cols != out_features() || x.rows != y.rows)
            throw shape_error("linear layer " + shape_string(out_features(), in_features()) + ": input " +
                              shape_string(x.rows, x.cols) + " and output " + shape_string(y.rows, y.cols) +
                              " do not fit it");
        blas::gemm_nt(x, view_of(weight), y, 1.0f, 0.0f);
        if (bias.size() == 0) return;
        for (std::size_t r = 0; r < y.rows; ++r)
            for (std::size_t n = 0; n < y.cols; ++n) y(r, n) += bias(n);
    }
};

}  // namespace gptq::model
