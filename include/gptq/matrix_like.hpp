// Reads matrices of foreign types (xtensor containers, views and expressions, or anything with shape() and operator())
// without naming any of them.
#pragma once

#include <concepts>
#include <cstddef>
#include <string>
#include <type_traits>

#include <gptq/error.hpp>
#include <gptq/matrix_view.hpp>

namespace gptq {

/// Anything two-dimensional that can be read element by element: x.shape()[0], x.shape()[1], x(r, c).
template <class X>
concept MatrixLike = requires(const X& x, std::size_t i) {
    { x.shape()[0] } -> std::convertible_to<std::size_t>;
    { x(i, i) } -> std::convertible_to<float>;
};

/// What the surface accepts as a matrix of float: a view, or anything MatrixLike.
template <class X>
concept ReadableMatrix = MatrixLike<X> || std::is_convertible_v<const X&, matrix_view<const float>>;

namespace detail {

template <class X>
void check_two_dimensional(const X& x, const char* what) {
    if constexpr (requires { x.dimension(); }) {
        if (x.dimension() != 2)
            throw shape_error(std::string(what) + " has " + std::to_string(x.dimension()) +
                              " dimensions; give a matrix [rows, cols]");
    }
}

/// Has elements of type T in memory, with strides (xtensor containers, adaptors and strided views).
template <class X, class T>
concept Strided = requires(const X& x) {
    { x.data() + x.data_offset() } -> std::convertible_to<const T*>;
    { x.strides()[0] } -> std::convertible_to<std::ptrdiff_t>;
};

}  // namespace detail

/// A matrix_view over X where X lies in memory row by row, and over an evaluated copy where it does not.
/// X must outlive the object. Throws shape_error if X is not two-dimensional.
template <class T, class X>
class readable_matrix {
 public:
    explicit readable_matrix(const X& x, const char* what = "matrix") {
        if constexpr (std::is_convertible_v<const X&, matrix_view<const T>>) {
            view_ = x;
        } else {
            detail::check_two_dimensional(x, what);
            const auto rows = static_cast<std::size_t>(x.shape()[0]);
            const auto cols = static_cast<std::size_t>(x.shape()[1]);
            if (!borrow(x, rows, cols)) evaluate(x, rows, cols);
        }
    }
    readable_matrix(const readable_matrix&) = delete;
    readable_matrix& operator=(const readable_matrix&) = delete;

    matrix_view<const T> view() const { return view_; }

 private:
    bool borrow([[maybe_unused]] const X& x, [[maybe_unused]] std::size_t rows, [[maybe_unused]] std::size_t cols) {
        if constexpr (detail::Strided<X, T>) {
            // A dimension of one element may report stride 0; its stride is never used.
            const auto row_stride = static_cast<std::ptrdiff_t>(x.strides()[0]);
            const auto col_stride = static_cast<std::ptrdiff_t>(x.strides()[1]);
            const bool unit_columns = cols <= 1 || col_stride == 1;
            const bool forward_rows = rows <= 1 || row_stride >= static_cast<std::ptrdiff_t>(cols);
            if (!unit_columns || !forward_rows) return false;
            view_ = {x.data() + x.data_offset(), rows, cols, rows <= 1 ? cols : static_cast<std::size_t>(row_stride)};
            return true;
        }
        return false;
    }

    void evaluate(const X& x, std::size_t rows, std::size_t cols) {
        copy_ = matrix<T>(rows, cols);
        for (std::size_t r = 0; r < rows; ++r)
            for (std::size_t c = 0; c < cols; ++c) copy_(r, c) = static_cast<T>(x(r, c));
        view_ = copy_.view();
    }

    matrix<T> copy_;
    matrix_view<const T> view_;
};

}  // namespace gptq
