// tensor_sink: a type that takes tensors one after another, such as a file that is being written.
#pragma once

#include <cstddef>
#include <functional>
#include <span>
#include <string_view>

#include <gptq/io/dtype.hpp>

namespace gptq::io {

/// Takes the name, type, shape and bytes of a tensor.
using tensor_sink =
    std::function<void(std::string_view, dtype, std::span<const std::size_t>, std::span<const std::byte>)>;

}  // namespace gptq::io
