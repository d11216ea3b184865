// The check that keeps NaN and infinity out of everything.
#pragma once

#include <cmath>
#include <cstddef>
#include <string>
#include <string_view>

#include <gptq/error.hpp>
#include <gptq/fold.hpp>
#include <gptq/matrix_view.hpp>

namespace gptq {

/// Throws non_finite_error, naming the first offending element, unless every element of `m` is finite.
/// `row_name` and `col_name` say what rows and columns are, as in "token 3, feature 17".
inline void require_finite(matrix_view<const float> m, std::string_view what, std::string_view row_name = "row",
                           std::string_view col_name = "column") {
    for (std::size_t r = 0; r < m.rows; ++r) {
        // x - x is 0 for finite x and NaN otherwise, so one sum a row finds what a branch an element would.
        const auto row = m.row(r);
        if (detail::sum(row.size(), [row](std::size_t c) { return row[c] - row[c]; }) == 0.0f) continue;
        for (std::size_t c = 0; c < m.cols; ++c)
            if (!std::isfinite(m(r, c)))
                throw non_finite_error(std::string(what) + ": the value at " + std::string(row_name) + " " +
                                       std::to_string(r) + ", " + std::string(col_name) + " " + std::to_string(c) +
                                       " is not finite");
    }
}

}  // namespace gptq
