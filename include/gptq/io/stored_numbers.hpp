// Floats as the bytes of a tensor.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstring>
#include <string>
#include <vector>

#include <gptq/error.hpp>
#include <gptq/half.hpp>
#include <gptq/io/dtype.hpp>
#include <gptq/matrix_view.hpp>

namespace gptq::io {

namespace detail {

/// Numbers as T, in place too.
template <class T>
std::vector<std::byte> stored_as(matrix_view<float> W, const std::string& where) {
    std::vector<std::byte> bytes(W.rows * W.cols * sizeof(T));
    std::byte* to = bytes.data();
    for (std::size_t n = 0; n < W.rows; ++n)
        for (float& w : W.row(n)) {
            const T number = narrow<T>(w);
            w = static_cast<float>(to_float(number));
            if (!std::isfinite(w))
                throw non_finite_error(where + ": a weight is outside what the tensor's dtype holds");
            std::memcpy(to, &number, sizeof(T));
            to += sizeof(T);
        }
    return bytes;
}

}  // namespace detail

/// W [N, K] in the numbers of a tensor, F32, F16 or BF16, row by row; W becomes what they stand for. `where` names the
/// tensor in messages. Throws non_finite_error for numbers that the type cannot hold, unsupported_error for other
/// types.
inline std::vector<std::byte> stored_as(dtype type, matrix_view<float> W, const std::string& where) {
    switch (type) {
        case dtype::f32: return detail::stored_as<float>(W, where);
        case dtype::f16: return detail::stored_as<half>(W, where);
        case dtype::bf16: return detail::stored_as<bfloat16>(W, where);
        default: throw unsupported_error(where + ": is written only as F32, F16 or BF16");
    }
}

}  // namespace gptq::io
