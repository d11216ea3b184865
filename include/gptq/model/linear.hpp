// linear: one linear layer of a model, its weights in float or as codes.
#pragma once

#include <cstddef>
#include <string>
#include <type_traits>
#include <variant>

#include <gptq/error.hpp>
#include <gptq/matmul.hpp>
#include <gptq/matrix_view.hpp>
#include <gptq/model/dense.hpp>
#include <gptq/xtensor/adapt.hpp>
#include <gptq/xtensor/matmul.hpp>
#include <gptq/xtensor/quantized.hpp>
#include <gptq/xtensor/surface.hpp>

namespace gptq::model {

/// How a quantized layer is held: dequantized to float; or as codes, with its inputs as they are, or rounded to
/// integers of 16 or 8 bits while they are multiplied (see gptq::activation).
enum class quantized_form { dense, exact, int16, int8 };

/// Y = X · Wᵀ + bias with W [N, K].
struct linear {
    tensor2<float> weight = make_tensor2<float>(0, 0);  ///< [N, K]; empty where `packed` holds the layer
    std::variant<std::monostate, prepared<activation::exact>, prepared<activation::int16>, prepared<activation::int8>>
        packed;
    tensor1<float> bias = make_tensor1<float>(0);  ///< [N], or empty

    std::size_t out_features() const {
        return on_weights([](const auto& m) { return m.out_features(); },
                          [](matrix_view<const float> w) { return w.rows; });
    }
    std::size_t in_features() const {
        return on_weights([](const auto& m) { return m.in_features(); },
                          [](matrix_view<const float> w) { return w.cols; });
    }

    /// False for the parts that an architecture does not have (the gate of a plain MLP).
    explicit operator bool() const { return out_features() != 0; }

    /// Makes the layer hold `q` in that form.
    void hold(const quantized_layer& q, quantized_form form) {
        weight = form == quantized_form::dense ? dequantize(q) : make_tensor2<float>(0, 0);
        switch (form) {
            case quantized_form::dense: packed = std::monostate(); return;
            case quantized_form::exact: packed = prepare<activation::exact>(q); return;
            case quantized_form::int16: packed = prepare<activation::int16>(q); return;
            case quantized_form::int8: packed = prepare<activation::int8>(q); return;
        }
    }

    /// Writes X [T, K] · Wᵀ + bias into Y [T, N]. Throws shape_error where the shapes do not fit.
    void apply(matrix_view<const float> x, matrix_view<float> y) const {
        if (x.cols != in_features() || y.cols != out_features() || x.rows != y.rows)
            throw shape_error("linear layer " + shape_string(out_features(), in_features()) + ": input " +
                              shape_string(x.rows, x.cols) + " and output " + shape_string(y.rows, y.cols) +
                              " do not fit it");
        on_weights([&](const auto& m) { m.multiply(x, y); },
                   [&](matrix_view<const float> w) { multiply_dense(x, w, y); });
        if (bias.size() == 0) return;
        for (std::size_t r = 0; r < y.rows; ++r)
            for (std::size_t n = 0; n < y.cols; ++n) y(r, n) += bias(n);
    }

 private:
    /// on_codes(prepared) or on_dense(view of weight), whichever the layer holds.
    template <class OnCodes, class OnDense>
    std::invoke_result_t<OnDense, matrix_view<const float>> on_weights(OnCodes&& on_codes, OnDense&& on_dense) const {
        return std::visit(
            [&](const auto& held) {
                if constexpr (std::is_same_v<std::decay_t<decltype(held)>, std::monostate>)
                    return on_dense(view_of(weight));
                else
                    return on_codes(held);
            },
            packed);
    }
};

}  // namespace gptq::model
