// Squares of 4 x 4 numbers, whose rows become columns by a few vector instructions of any machine.
#pragma once

#include <cstddef>
#include <cstring>

namespace gptq::detail {

/// Four numbers side by side.
using four_floats [[gnu::vector_size(16)]] = float;

struct square {
    static constexpr std::size_t size = 4;
    four_floats rows[size];

    /// row(r) is where the four numbers of row r are, on any boundary.
    template <class Row>
    static square load(const Row& row) {
        square s;
        for (std::size_t r = 0; r < size; ++r) std::memcpy(&s.rows[r], row(r), sizeof s.rows[r]);
        return s;
    }
    template <class Row>
    void store(const Row& row) const {
        for (std::size_t r = 0; r < size; ++r) std::memcpy(row(r), &rows[r], sizeof rows[r]);
    }

    square turned() const {
        const auto low_01 = __builtin_shufflevector(rows[0], rows[1], 0, 4, 1, 5);
        const auto high_01 = __builtin_shufflevector(rows[0], rows[1], 2, 6, 3, 7);
        const auto low_23 = __builtin_shufflevector(rows[2], rows[3], 0, 4, 1, 5);
        const auto high_23 = __builtin_shufflevector(rows[2], rows[3], 2, 6, 3, 7);
        return {{__builtin_shufflevector(low_01, low_23, 0, 1, 4, 5),
                 __builtin_shufflevector(low_01, low_23, 2, 3, 6, 7),
                 __builtin_shufflevector(high_01, high_23, 0, 1, 4, 5),
                 __builtin_shufflevector(high_01, high_23, 2, 3, 6, 7)}};
    }
};

/// on_square(r, c) for as many squares as [0, rows) x [0, cols) holds, on_number(r, c) for each element besides.
template <class OnSquare, class OnNumber>
void for_each_square(std::size_t rows, std::size_t cols, const OnSquare& on_square, const OnNumber& on_number) {
    const std::size_t square_rows = rows / square::size * square::size,
                      square_cols = cols / square::size * square::size;
    for (std::size_t r = 0; r < square_rows; r += square::size)
        for (std::size_t c = 0; c < square_cols; c += square::size) on_square(r, c);
    for (std::size_t r = 0; r < rows; ++r)
        for (std::size_t c = r < square_rows ? square_cols : 0; c < cols; ++c) on_number(r, c);
}

}  // namespace gptq::detail
