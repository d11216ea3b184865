// The bodies of <gptq/model/table.hpp>.
#pragma once

#include <cstddef>
#include <span>
#include <utility>
#include <variant>

#include <gptq/compiled.hpp>
#include <gptq/half.hpp>
#include <gptq/matrix_view.hpp>
#include <gptq/model/dense.hpp>
#include <gptq/model/table.hpp>
#include <gptq/xtensor/adapt.hpp>

namespace gptq::model {

GPTQ_INLINE std::size_t table::rows() const {
    return visit([](const auto& view) { return view.rows; });
}

GPTQ_INLINE std::size_t table::cols() const {
    return visit([](const auto& view) { return view.cols; });
}

GPTQ_INLINE void table::copy_row(std::size_t r, float factor, std::span<float> out) const {
    visit([&](const auto& view) {
        const auto row = view.row(r);
        for (std::size_t i = 0; i < out.size(); ++i) out[i] = widen_finite(row[i]) * factor;
    });
}

GPTQ_INLINE tensor2<float> table::floats() const& {
    auto all = make_tensor2<float>(rows(), cols());
    for (std::size_t r = 0; r < rows(); ++r) copy_row(r, 1.0f, view_of(all).row(r));
    return all;
}

GPTQ_INLINE tensor2<float> table::floats() && {
    if (auto* numbers = std::get_if<tensor2<float>>(&numbers_)) return std::move(*numbers);
    return std::as_const(*this).floats();
}

GPTQ_INLINE void table::multiply(matrix_view<const float> x, matrix_view<float> y) const {
    visit([&](const auto& view) { multiply_dense(x, view, y); });
}

}  // namespace gptq::model
