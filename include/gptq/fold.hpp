// Sums, minima and maxima that compilers can vectorize.
#pragma once

#include <array>
#include <cstddef>
#include <functional>

namespace gptq::detail {

/// combine() of the first Count, a power of two, in halves, which vectorizes as well.
template <std::size_t Count, class Chains, class Combine>
constexpr auto fold_halves(Chains& chains, const Combine& combine) {
    constexpr std::size_t half = Count / 2;
    if constexpr (half == 0)
        return chains[0];
    else {
        for (std::size_t i = 0; i < half; ++i) chains[i] = combine(chains[i], chains[half + i]);
        return fold_halves<half>(chains, combine);
    }
}

/// combine(... combine(neutral, term(0)) ..., term(n - 1)), except that the order is that of `Lanes` chains side by
/// side, Lanes a power of two: only so may compilers make vector instructions of a loop over floats. combine is
/// associative up to rounding; combine(neutral, x) = x.
template <std::size_t Lanes = 8, class T, class Combine, class Term>
constexpr T fold(std::size_t n, T neutral, const Combine& combine, const Term& term) {
    std::array<T, Lanes> chains{};
    for (T& chain : chains) chain = neutral;
    std::size_t i = 0;
    for (; i + Lanes <= n; i += Lanes)
        for (std::size_t lane = 0; lane < Lanes; ++lane) chains[lane] = combine(chains[lane], term(i + lane));
    for (; i < n; ++i) chains[0] = combine(chains[0], term(i));
    return fold_halves<Lanes>(chains, combine);
}

/// The sum of term(0) to term(n - 1), as fold().
template <std::size_t Lanes = 8, class Term>
constexpr auto sum(std::size_t n, const Term& term) {
    using T = decltype(term(n));
    return fold<Lanes>(n, T{}, std::plus<T>(), term);
}

}  // namespace gptq::detail
