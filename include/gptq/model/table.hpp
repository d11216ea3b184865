// table: vectors to look tokens up in and to compare states with, in the numbers that the file has them in.
#pragma once

#include <cstddef>
#include <span>
#include <utility>
#include <variant>

#include <gptq/half.hpp>
#include <gptq/matrix_view.hpp>
#include <gptq/xtensor/adapt.hpp>

namespace gptq::model {

/// A matrix of finite numbers that a model reads as a whole for each token: held in half or bfloat16 where the file has
/// them so, it is half as much to read. What is computed is the same to the bit.
class table {
 public:
    table() = default;

    /// f(view of the numbers), a matrix_view of const float, half or bfloat16 [rows, cols].
    template <class F>
    auto visit(const F& f) const {
        return std::visit([&](const auto& numbers) { return f(view(numbers)); }, numbers_);
    }

    /// All numbers are finite.
    table(tensor2<float>&& numbers) : numbers_(std::move(numbers)) {}
    table(matrix<half>&& numbers) : numbers_(std::move(numbers)) {}
    table(matrix<bfloat16>&& numbers) : numbers_(std::move(numbers)) {}

    std::size_t rows() const;
    std::size_t cols() const;

    /// Row r times `factor` to out [cols].
    void copy_row(std::size_t r, float factor, std::span<float> out) const;

    /// Whether the numbers take two bytes each.
    bool is_narrow() const { return !std::holds_alternative<tensor2<float>>(numbers_); }

    /// All of it in float.
    tensor2<float> floats() const&;
    tensor2<float> floats() &&;

    /// Y = X · Tᵀ.                                                        X [T, cols]  Y [T, rows]
    void multiply(matrix_view<const float> x, matrix_view<float> y) const;

 private:
    static matrix_view<const float> view(const tensor2<float>& numbers) { return view_of(numbers); }
    template <class T>
    static matrix_view<const T> view(const matrix<T>& numbers) {
        return numbers.view();
    }

    std::variant<tensor2<float>, matrix<half>, matrix<bfloat16>> numbers_ = make_tensor2<float>(0, 0);
};

}  // namespace gptq::model

#ifndef GPTQ_COMPILED
#include <gptq/model/impl/table.hpp>
#endif
