// table: vectors to look tokens up in and to compare states with, in the numbers that the file has them in.
#pragma once

#include <algorithm>
#include <cstddef>
#include <span>
#include <utility>
#include <variant>

#include <gptq/half.hpp>
#include <gptq/io/dtype.hpp>
#include <gptq/matrix_view.hpp>
#include <gptq/model/dense.hpp>
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
    table(tensor2<float>&& values, io::dtype stored) {
        switch (stored) {
            case io::dtype::f16: numbers_ = narrowed<half>(values); break;
            case io::dtype::bf16: numbers_ = narrowed<bfloat16>(values); break;
            default: numbers_ = std::move(values);
        }
    }

    std::size_t rows() const {
        return visit([](const auto& view) { return view.rows; });
    }
    std::size_t cols() const {
        return visit([](const auto& view) { return view.cols; });
    }

    /// Row r times `factor` to out [cols].
    void copy_row(std::size_t r, float factor, std::span<float> out) const {
        visit([&](const auto& view) {
            const auto row = view.row(r);
            for (std::size_t i = 0; i < out.size(); ++i) out[i] = widen_finite(row[i]) * factor;
        });
    }

    /// All of it in float.
    tensor2<float> floats() const {
        auto all = make_tensor2<float>(rows(), cols());
        for (std::size_t r = 0; r < rows(); ++r) copy_row(r, 1.0f, view_of(all).row(r));
        return all;
    }

    /// Y = X · Tᵀ.                                                        X [T, cols]  Y [T, rows]
    void multiply(matrix_view<const float> x, matrix_view<float> y) const {
        visit([&](const auto& view) { multiply_dense(x, view, y); });
    }

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
