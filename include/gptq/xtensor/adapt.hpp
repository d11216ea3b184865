// From xtensor containers to the views that the core works on, and back.
#pragma once

#include <array>
#include <cstddef>

#include <gptq/checked_size.hpp>
#include <gptq/matrix_view.hpp>
#include <gptq/xtensor/xtensor_headers.hpp>

namespace gptq {

/// The library's owning matrix and vector at the surface.
template <class T>
using tensor2 = xt::xtensor<T, 2, xt::layout_type::row_major>;
template <class T>
using tensor1 = xt::xtensor<T, 1, xt::layout_type::row_major>;

/// An uninitialized [rows, cols] matrix. Throws shape_error for more elements than memory can hold.
template <class T>
tensor2<T> make_tensor2(std::size_t rows, std::size_t cols) {
    checked_elements<T>(rows, cols);
    return tensor2<T>(std::array<std::size_t, 2>{rows, cols});
}

/// An uninitialized [size] vector.
template <class T>
tensor1<T> make_tensor1(std::size_t size) {
    return tensor1<T>(std::array<std::size_t, 1>{size});
}

/// A view of a row-major container's elements; the container must outlive it.
template <class T>
matrix_view<T> view_of(tensor2<T>& m) {
    return {m.data(), m.shape()[0], m.shape()[1]};
}
template <class T>
matrix_view<const T> view_of(const tensor2<T>& m) {
    return {m.data(), m.shape()[0], m.shape()[1]};
}

}  // namespace gptq
