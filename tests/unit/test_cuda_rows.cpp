// The row operations of the core leave the same on the CUDA backend, by elements and by warps, as row by row.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <numeric>
#include <random>
#include <vector>

#include <gptq/backends/cuda/host_executed_backend.hpp>
#include <gptq/backends/cuda/row_kernels.hpp>
#include <gptq/drift.hpp>
#include <gptq/grids/affine.hpp>
#include <gptq/layer_error.hpp>
#include <gptq/matrix_view.hpp>
#include <gptq/refine.hpp>
#include <gptq/round_to_nearest.hpp>
#include <gptq/solver_state.hpp>

#include "support/catch.hpp"

namespace detail = gptq::detail;
using gptq::matrix;
using gptq::cuda::ColumnwiseOperation;

namespace {

matrix<float> random_matrix(std::size_t rows, std::size_t cols) {
    std::mt19937 random(8);
    std::normal_distribution<float> normal;
    matrix<float> m(rows, cols);
    for (std::size_t i = 0; i < rows * cols; ++i) m.data()[i] = normal(random);
    return m;
}

/// The numbers from 0 to n - 1 in some order.                                                                 [1, n]
matrix<std::size_t> random_order(std::size_t n) {
    matrix<std::size_t> order(1, n);
    std::iota(order.data(), order.data() + n, std::size_t{0});
    std::shuffle(order.data(), order.data() + n, std::mt19937(9));
    return order;
}

template <class T>
bool same(const matrix<T>& a, const matrix<T>& b) {
    return std::equal(a.data(), a.data() + a.rows() * a.cols(), b.data(), b.data() + b.rows() * b.cols());
}

/// Whether rows [0, rows) of operation_on(result), for a result that starts as `start`, come out alike in both ways.
template <class T, class Make>
bool same_by_kernel(std::size_t rows, const matrix<T>& start, const Make& operation_on) {
    matrix<T> expected = start, got = start;
    const auto by_row = operation_on(expected.view());
    for (std::size_t r = 0; r < rows; ++r) by_row(r);
    gptq::cuda::host_executed_backend{}.for_each_row(rows, operation_on(got.view()));
    return same(expected, got) && !same(expected, start);
}

}  // namespace

TEST_CASE("weights are rounded to their grids by elements") {
    using round = detail::round_row<3, gptq::asymmetric>;
    static_assert(ColumnwiseOperation<round>);
    const auto W = random_matrix(3, 50);
    matrix<float> scales(3, 4);  // groups of 16, a short one last
    matrix<std::uint8_t> zeros(3, 4);
    for (std::size_t i = 0; i < 12; ++i) {
        scales.data()[i] = 0.25f + 0.0625f * static_cast<float>(i);
        zeros.data()[i] = static_cast<std::uint8_t>(i % 8);
    }
    CHECK(same_by_kernel(3, matrix<std::uint8_t>(3, 50), [&](auto codes) {
        return round{W.view(), {scales.view(), zeros.view()}, codes, 16, {}};
    }));
}

TEST_CASE("columns are put into another order by elements") {
    static_assert(ColumnwiseOperation<detail::permute_columns> && ColumnwiseOperation<detail::scatter_codes>);
    const auto from = random_matrix(3, 50);
    const auto order = random_order(50);
    for (const bool back : {false, true})
        CHECK(same_by_kernel(3, matrix<float>(3, 50), [&](auto to) {
            return detail::permute_columns{from.view(), to, order.view(), back};
        }));
    matrix<std::uint8_t> codes(3, 50);
    for (std::size_t i = 0; i < 150; ++i) codes.data()[i] = static_cast<std::uint8_t>(1 + i);
    CHECK(same_by_kernel(3, matrix<std::uint8_t>(3, 50), [&](auto to) {
        return detail::scatter_codes{codes.view(), to, order.view()};
    }));
}

TEST_CASE("matrices are turned and transposed by elements") {
    const auto a = random_matrix(20, 7), square = random_matrix(20, 20);
    matrix<float> b(20, 7);
    static_assert(ColumnwiseOperation<detail::transposed_difference<float>>);
    CHECK(same_by_kernel(7, matrix<float>(7, 20), [&](auto to) {
        return detail::transposed_difference<float>{a.view(), b.view(), to};
    }));
    CHECK(same_by_kernel(20, matrix<float>(20, 20), [&](auto to) {
        return detail::anti_transpose_row{square.view(), to};
    }));
    CHECK(same_by_kernel(20, square, [](auto to) { return detail::reverse_row{to}; }));
    CHECK(same_by_kernel(20, a, [](auto to) { return detail::reverse_row{to}; }));  // an odd number of columns
    CHECK(same_by_kernel(20, square, [](auto to) { return detail::identity_row{to}; }));
}

TEST_CASE("halves of a symmetric matrix are taken by elements") {
    static_assert(ColumnwiseOperation<detail::half_row>);
    const auto H = random_matrix(20, 20);
    for (const std::size_t first : {0u, 5u, 13u})
        CHECK(same_by_kernel(first + 7, matrix<float>(20, 7), [&](auto M) {
            return detail::half_row{H.view(), M, first};
        }));
}

TEST_CASE("rows of a factor are gathered by elements, beside their transpose") {
    static_assert(ColumnwiseOperation<detail::gather_rows>);
    const auto A = random_matrix(20, 20);
    matrix<std::size_t> positions(1, 3);
    positions(0, 0) = 4, positions(0, 1) = 11, positions(0, 2) = 19;
    matrix<float> S(3, 16), St(16, 3), by_kernel(3, 16);
    CHECK(same_by_kernel(3, matrix<float>(16, 3), [&](auto to) {
        return detail::gather_rows{A.view(), positions.view(), S.view(), to};
    }));
    CHECK(same_by_kernel(3, matrix<float>(3, 16), [&](auto to) {
        return detail::gather_rows{A.view(), positions.view(), to, St.view()};
    }));
}

TEST_CASE("inner products of rows are those of the plain loop up to rounding") {
    const auto a = random_matrix(5, 1000);
    matrix<float> b(5, 1000);
    for (std::size_t i = 0; i < 5000; ++i) b.data()[i] = a.data()[4999 - i];
    matrix<double> expected(5, 1), got(5, 1);
    const detail::dot_row plain{a.view(), b.view(), expected.view()};
    for (std::size_t r = 0; r < 5; ++r) plain(r);
    gptq::cuda::host_executed_backend{}.for_each_row(5, detail::dot_row{a.view(), b.view(), got.view()});
    for (std::size_t r = 0; r < 5; ++r) CHECK(got(r, 0) == Approx(expected(r, 0)).epsilon(1e-12));
}

TEST_CASE("the lower triangle of a factor becomes zeros") {
    auto H = random_matrix(9, 9);
    for (std::size_t i = 0; i < 9; ++i) H(i, i) = 40.0f;
    CHECK(gptq::cuda::host_executed_backend{}.factor_upper(H.view()));
    for (std::size_t r = 0; r < 9; ++r)
        for (std::size_t c = 0; c < r; ++c) CHECK(H(r, c) == 0.0f);
}

TEST_CASE("elements of narrow and of wide matrices are visited once each") {
    for (const std::size_t cols : {1u, 2u, 100u, 127u, 128u, 129u, 1500u}) {
        const std::size_t rows = 2500 / cols + 1;  // more than one block
        CAPTURE(cols);
        const auto from = random_matrix(rows, cols);
        CHECK(same_by_kernel(rows, random_matrix(rows, cols), [&](auto to) {
            return detail::add_row{from.view(), to};
        }));
    }
}
