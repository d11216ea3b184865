// The check that keeps NaN and infinity out of everything.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

#include <gptq/error.hpp>
#include <gptq/fold.hpp>
#include <gptq/half.hpp>
#include <gptq/matrix_view.hpp>

namespace gptq {

namespace detail {

// x - x is 0 for finite x and NaN otherwise; unlike std::isfinite, compilers make a vector instruction of it.
constexpr bool is_finite(float x) { return x - x == 0.0f; }
constexpr bool is_finite(half x) { return (x.bits & 0x7c00u) != 0x7c00u; }
constexpr bool is_finite(bfloat16 x) { return (x.bits & 0x7f80u) != 0x7f80u; }

}  // namespace detail

/// Throws non_finite_error, naming the first offending element, unless every element of `m`, float, half or bfloat16,
/// is finite. `row_name` and `col_name` say what rows and columns are, as in "token 3, feature 17".
template <class T>
void require_finite(matrix_view<const T> m, std::string_view what, std::string_view row_name = "row",
                    std::string_view col_name = "column") {
    for (std::size_t r = 0; r < m.rows; ++r) {
        const auto row = m.row(r);
        const auto offends = [row](std::size_t c) -> unsigned { return !detail::is_finite(row[c]); };
        if (detail::sum(row.size(), offends) == 0) continue;
        std::size_t c = 0;
        while (!offends(c)) ++c;
        throw non_finite_error(std::string(what) + ": the value at " + std::string(row_name) + " " + std::to_string(r) +
                               ", " + std::string(col_name) + " " + std::to_string(c) + " is not finite");
    }
}

}  // namespace gptq
