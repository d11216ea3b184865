// matrix_view: the only matrix type that the algorithms see. matrix: the plain owning buffer behind it.
#pragma once

#include <cstddef>
#include <span>
#include <type_traits>
#include <vector>

#include <gptq/checked_size.hpp>
#include <gptq/error.hpp>
#include <gptq/zeroed_allocator.hpp>

namespace gptq {

/// A row-major matrix that somebody else owns: element (r, c) is data[r * ld + c], with ld >= cols.
/// Cheap to copy; a view of T converts to a view of const T.
template <class T>
struct matrix_view {
    T* data = nullptr;  ///< element (0, 0)
    std::size_t rows = 0;
    std::size_t cols = 0;
    std::size_t ld = 0;  ///< elements from one row to the next, at least cols

    constexpr matrix_view() = default;
    constexpr matrix_view(T* pointer, std::size_t row_count, std::size_t col_count)
        : matrix_view(pointer, row_count, col_count, col_count) {}
    constexpr matrix_view(T* pointer, std::size_t row_count, std::size_t col_count, std::size_t leading)
        : data(pointer), rows(row_count), cols(col_count), ld(leading) {}

    template <class U>
    requires(std::is_same_v<const U, T> && !std::is_same_v<U, T>) constexpr matrix_view(const matrix_view<U>& other)
        : matrix_view(other.data, other.rows, other.cols, other.ld) {}

    constexpr T& operator()(std::size_t r, std::size_t c) const { return data[r * ld + c]; }

    /// Row r as a contiguous span of `cols` elements.
    constexpr std::span<T> row(std::size_t r) const { return {data + r * ld, cols}; }

    /// The part [first_row, first_row + row_count) x [first_col, first_col + col_count); shares the elements.
    constexpr matrix_view block(std::size_t first_row, std::size_t row_count, std::size_t first_col,
                                std::size_t col_count) const {
        return {data + first_row * ld + first_col, row_count, col_count, ld};
    }

    /// Columns [first, last) of every row.
    constexpr matrix_view columns(std::size_t first, std::size_t last) const {
        return block(0, rows, first, last - first);
    }
};

/// An owning row-major matrix, zeroed on construction: the scratch memory of host backends.
template <class T>
class matrix {
 public:
    matrix() = default;
    /// Throws shape_error for more elements than memory can hold, std::bad_alloc where there is not enough of it.
    matrix(std::size_t rows, std::size_t cols) : values_(checked_elements<T>(rows, cols)), rows_(rows), cols_(cols) {}

    std::size_t rows() const { return rows_; }
    std::size_t cols() const { return cols_; }
    T* data() { return values_.data(); }  ///< the elements, row by row
    const T* data() const { return values_.data(); }
    T& operator()(std::size_t r, std::size_t c) { return values_[r * cols_ + c]; }
    const T& operator()(std::size_t r, std::size_t c) const { return values_[r * cols_ + c]; }

    matrix_view<T> view() { return {values_.data(), rows_, cols_}; }
    matrix_view<const T> view() const { return {values_.data(), rows_, cols_}; }

 private:
    std::vector<T, detail::zeroed_allocator<T>> values_;
    std::size_t rows_ = 0;
    std::size_t cols_ = 0;
};

}  // namespace gptq
