// The memory half of every backend whose matrices lie in host memory; derive from it and add the arithmetic.
#pragma once

#include <algorithm>
#include <cstddef>
#include <type_traits>

#include <gptq/error.hpp>
#include <gptq/matrix_view.hpp>

namespace gptq {

/// make_matrix, lend and download of the Backend concept for host memory.
struct host_memory {
    template <class T>
    matrix<T> make_matrix(std::size_t rows, std::size_t cols) const {
        return matrix<T>(rows, cols);
    }

    /// Nothing to move: the host matrix itself.
    template <class T>
    struct lent {
        matrix_view<const T> elements;
        matrix_view<const T> view() const { return elements; }
    };
    template <class T>
    lent<std::remove_const_t<T>> lend(matrix_view<T> host) const {
        return {host};
    }

    /// Throws shape_error where the shapes differ.
    template <class T>
    void download(matrix_view<const std::type_identity_t<T>> mine, matrix_view<T> host) const {
        if (mine.rows != host.rows || mine.cols != host.cols)
            throw shape_error("download: " + shape_string(mine.rows, mine.cols) + " into " +
                              shape_string(host.rows, host.cols));
        for (std::size_t r = 0; r < mine.rows; ++r) std::copy_n(mine.row(r).data(), mine.cols, host.row(r).data());
    }
};

}  // namespace gptq
