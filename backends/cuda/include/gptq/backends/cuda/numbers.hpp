// The numbers of a model in kernels: float, half and bfloat16 alike.
#pragma once

#include <concepts>
#include <cstdint>

#include <gptq/backends/cuda/context.hpp>
#include <gptq/half.hpp>

namespace gptq::cuda::detail {

/// x as a float.
template <class T, class Context>
constexpr float widened([[maybe_unused]] Context& ctx, T x) {
    if constexpr (std::same_as<T, float>)
        return x;
    else
        return ctx.widen(x);
}

/// The number of T nearest to x.
template <class T, class Context>
constexpr T narrowed([[maybe_unused]] Context& ctx, float x) {
    if constexpr (std::same_as<T, float>)
        return x;
    else
        return T{static_cast<std::uint16_t>(ctx.template narrow_pair<T>(x, 0.0f))};
}

}  // namespace gptq::cuda::detail
