// table: vectors to look tokens up in and to compare states with, in the numbers that the file has them in.
#pragma once

#include <algorithm>
#include <cstddef>
#include <span>
#include <variant>

#include <gptq/half.hpp>
#include <gptq/io/dtype.hpp>
#include <gptq/matrix_view.hpp>
#include <gptq/xtensor/adapt.hpp>

namespace gptq::model {

/// A matrix of finite numbers that a model reads as a whole for each token: held in half or bfloat16 where the file has
/// them so, it is half as much to read. What is computed is the same to the bit.
class table {
    /// f(view of the numbers)
    template <class F>
    auto visit(const F& f) const {
        return std::visit([&](const auto& numbers) { return f(view(numbers)); }, numbers_);
    }
    static matrix_view<const float> view(const tensor2<float>& numbers) { return view_of(numbers); }
    template <class T>
    static matrix_view<const T> view(const matrix<T>& numbers) {
        return numbers.view();
    }

 public:
    table() = default;

    /// `values` [rows, cols] come from a tensor of `stored` numbers, and are finite.
    table(tensor2<float>&& values, io::dtype stored);

    std::size_t rows() const;
    std::size_t cols() const;

    /// Row r times `factor` to out [cols].
    void copy_row(std::size_t r, float factor, std::span<float> out) const;

    /// All of it in float.
    tensor2<float> floats() const;

    /// Y = X · Tᵀ.                                                        X [T, cols]  Y [T, rows]
    void multiply(matrix_view<const float> x, matrix_view<float> y) const;

 private:
    template <class T>
    static matrix<T> narrowed(const tensor2<float>& values) {
        matrix<T> all(values.shape()[0], values.shape()[1]);
        std::transform(values.begin(), values.end(), all.data(), [](float x) { return narrow<T>(x); });
        return all;
    }

    std::variant<tensor2<float>, matrix<half>, matrix<bfloat16>> numbers_ = make_tensor2<float>(0, 0);
};

}  // namespace gptq::model

#ifndef GPTQ_COMPILED
#include <gptq/model/impl/table.hpp>
#endif
