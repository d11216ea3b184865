// linear: one linear layer of a model, its weights in float or as codes.
#pragma once

#include <cstddef>
#include <span>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

#include <gptq/half.hpp>
#include <gptq/matmul.hpp>
#include <gptq/matrix_view.hpp>
#include <gptq/model/backend.hpp>
#include <gptq/model/dense.hpp>
#include <gptq/model/stored_layer.hpp>
#include <gptq/model/table.hpp>
#include <gptq/weight_memory.hpp>
#include <gptq/xtensor/adapt.hpp>
#include <gptq/xtensor/quantized.hpp>

namespace gptq::model {

/// How a quantized layer is held: dequantized to float; or as codes, with its inputs as they are, or rounded to
/// integers of 16 or 8 bits while they are multiplied (see gptq::activation).
enum class quantized_form { dense, exact, int16, int8 };

/// What is left to do of the product of a linear layer, a job of kernels::run_jobs: pieces, or nothing.
class linear_job {
 public:
    linear_job() = default;
    template <class T>
    explicit linear_job(dense_job<T>&& job) : job_(job) {}
    explicit linear_job(begun_product<float>&& product) : job_(std::move(product)) {}

    /// The product with a quantized layer, if it is one.
    const begun_product<float>* product() const { return std::get_if<begun_product<float>>(&job_); }

    std::size_t count() const;
    std::size_t work() const;
    void operator()(std::size_t first, std::size_t last) const;

 private:
    struct nothing {
        std::size_t count() const { return 0; }
        std::size_t work() const { return 0; }
        void operator()(std::size_t, std::size_t) const {}
    };

    std::variant<nothing, dense_job<float>, dense_job<half>, dense_job<bfloat16>, begun_product<float>> job_;
};

/// Y = X · Wᵀ + terms + bias with W [N, K].
struct linear {
    tensor2<float> weight = make_tensor2<float>(0, 0);  ///< [N, K]; empty where `packed` holds the layer
    /// Codes, or numbers of two bytes as the files have them; nothing where `weight` holds the layer.
    std::variant<std::monostate, table, prepared<activation::exact>, prepared<activation::int16>,
                 prepared<activation::int8>>
        packed;
    tensor1<float> bias = make_tensor1<float>(0);  ///< [N], or empty
    std::vector<low_rank_term> terms;              ///< of adapters

    std::size_t out_features() const;
    std::size_t in_features() const;

    /// False for the parts that an architecture does not have (the gate of a plain MLP).
    explicit operator bool() const { return out_features() != 0; }

    /// Makes the layer hold `q` in that form, codes in `memory` if it is given.
    void hold(const quantized_layer& q, quantized_form form, weight_memory* memory = nullptr);
    /// Makes the layer hold these numbers: in float for quantized_form::dense, which is for those who change them or
    /// want their gradients, and as the files have them otherwise. Products are the same to the bit.
    void hold(table&& numbers, quantized_form form);

    /// Writes X [T, K] · Wᵀ + terms + bias into Y [T, N]. Throws shape_error where the shapes do not fit.
    void apply(matrix_view<const float> x, matrix_view<float> y) const;

    /// apply without terms and bias, in pieces that are left to do. `beside` is another layer's job with the same
    /// inputs, or null.
    linear_job begin(matrix_view<const float> x, matrix_view<float> y, const linear_job* beside) const;

 private:
    /// on_codes(prepared) or on_dense(view of the numbers), whichever the layer holds.
    template <class OnCodes, class OnDense>
    std::invoke_result_t<OnDense, matrix_view<const float>> on_weights(OnCodes&& on_codes, OnDense&& on_dense) const {
        return std::visit(
            [&](const auto& held) {
                using form = std::decay_t<decltype(held)>;
                if constexpr (std::is_same_v<form, std::monostate>)
                    return on_dense(view_of(weight));
                else if constexpr (std::is_same_v<form, table>)
                    return held.visit(on_dense);
                else
                    return on_codes(held);
            },
            packed);
    }
};

/// Linear layers that read the same inputs X [T, K], side by side: see linear::apply.
void apply_together(matrix_view<const float> x, std::span<const linear_output<linear, float>> outputs);

inline void linear::apply(matrix_view<const float> x, matrix_view<float> y) const {
    const linear_output<linear, float> only{*this, y};
    apply_together(x, {&only, 1});
}

}  // namespace gptq::model

#ifndef GPTQ_COMPILED
#include <gptq/model/impl/linear.hpp>
#endif
