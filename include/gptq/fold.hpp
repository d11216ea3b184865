// Sums, minima and maxima that compilers can vectorize.
#pragma once

#include <array>
#include <cstddef>
#include <functional>

namespace gptq::detail {

/// combine(... combine(neutral, term(0)) ..., term(n - 1)), except that the order is that of `Lanes` chains side by
/// side: only so may compilers make vector instructions of a loop over floats. combine is associative up to rounding;
/// combine(neutral, x) = x.
template <std::size_t Lanes = 8, class T, class Combine, class Term>
constexpr T fold(std::size_t n, T neutral, const Combine& combine, const Term& term) {
    std::array<T, Lanes> chains{};
    for (T& chain : chains) chain = neutral;
    std::size_t i = 0;
    for (; i + Lanes <= n; i += Lanes)
        for (std::size_t lane = 0; lane < Lanes; ++lane) chains[lane] = combine(chains[lane], term(i + lane));
    for (; i < n; ++i) chains[0] = combine(chains[0], term(i));
    T total = neutral;
    for (const T& chain : chains) total = combine(total, chain);
    return total;
}

/// The sum of term(0) to term(n - 1), as fold().
template <std::size_t Lanes = 8, class Term>
constexpr auto sum(std::size_t n, const Term& term) {
    using T = decltype(term(n));
    return fold<Lanes>(n, T{}, std::plus<T>(), term);
}

}  // namespace gptq::detail
