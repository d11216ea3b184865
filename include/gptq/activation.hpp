// How the inputs of a product with quantized weights are held while they are multiplied.
#pragma once

#include <concepts>

namespace gptq {

/// Activation<A>: how matmul holds its inputs.
///  1. A::levels is 0 where they stay the floats that they are.
///  2. Otherwise inputs are rounded to the nearest integers of magnitude at most A::levels, ties to even, with one
///     scale, max|x| / levels, for each token and block of at most 128 neighbours in one group. 1 <= levels <= 32639,
///     which is 127 * 256 + 127: kernels may hold the bytes of such an integer as two signed ones.
template <class A>
concept Activation = requires {
    { A::levels } -> std::convertible_to<int>;
    requires A::levels >= 0 && A::levels <= 32639;
};

namespace activation {

/// The inputs as they are.
struct exact {
    static constexpr int levels = 0;  ///< floats are not rounded
};

/// Inputs rounded to integers of magnitude at most Levels. Up to 127 they take one byte each, above that two.
template <int Levels>
struct rounded {
    static constexpr int levels = Levels;  ///< the largest rounded input
};

using int16 = rounded<32639>;  ///< closer to exact than half precision inputs are, and faster than float
using int8 = rounded<127>;     ///< the fastest, and lossy: opted into by name

}  // namespace activation

static_assert(Activation<activation::exact> && Activation<activation::int16> && Activation<activation::int8>);
static_assert(!Activation<activation::rounded<-1>> && !Activation<activation::rounded<40000>> && !Activation<int>);

}  // namespace gptq
