// What is known about a quantization at compile time, and functions that call a template with a choice made at run
// time.
#pragma once

#include <concepts>
#include <cstddef>
#include <string>

#include <gptq/concepts.hpp>
#include <gptq/error.hpp>
#include <gptq/grids/affine.hpp>
#include <gptq/groups.hpp>
#include <gptq/orders.hpp>
#include <gptq/settings.hpp>

namespace gptq {

/// A quantization scheme: `Bits` per weight (2 to 8), input features per group, the grid of representable values, and
/// the order in which columns are quantized.
template <int Bits, GroupPolicy Group = group_size<128>, class Grid = symmetric, OrderingPolicy Order = natural_order>
requires QuantGrid<Grid, Bits>
struct scheme {
    static_assert(Bits >= 2 && Bits <= 8, "gptq::scheme: the number of bits is 2 to 8");
    static constexpr int bits = Bits;  ///< bits a weight, 2 to 8
    using group = Group;               ///< a GroupPolicy
    using grid = Grid;                 ///< a QuantGrid
    using order = Order;               ///< an OrderingPolicy
};

/// Satisfied by `gptq::scheme<...>` and by anything with the same four members.
template <class S>
concept Scheme = requires {
    { S::bits } -> std::convertible_to<int>;
    typename S::group;
    typename S::grid;
    typename S::order;
}
&&QuantGrid<typename S::grid, S::bits>&& GroupPolicy<typename S::group>&& OrderingPolicy<typename S::order>;

/// Calls `f.template operator()<B>()` with the number of bits as a constant.
/// Throws unsupported_error for anything but 2 to 8.
template <class F>
decltype(auto) visit_bits(int bits, F&& f) {
    switch (bits) {
        case 2: return f.template operator()<2>();
        case 3: return f.template operator()<3>();
        case 4: return f.template operator()<4>();
        case 5: return f.template operator()<5>();
        case 6: return f.template operator()<6>();
        case 7: return f.template operator()<7>();
        case 8: return f.template operator()<8>();
        default: throw unsupported_error("bits: " + std::to_string(bits) + " is not supported; choose 2 to 8");
    }
}

/// The zero points that an asymmetric grid may have; the "gptq" (v1) file format cannot hold a zero point of 0.
enum class zero_points { from_zero, from_one };

/// Calls `f.template operator()<Grid>()` with the affine grid of `settings`, as rounding to nearest takes it.
template <class F>
decltype(auto) visit_grid(const quantize_settings& settings, zero_points zeros, F&& f) {
    if (settings.sym) return f.template operator()<symmetric>();
    if (zeros == zero_points::from_one) return f.template operator()<asymmetric_from_one>();
    return f.template operator()<asymmetric>();
}

/// Calls `f.template operator()<G>()` with Grid as the solver takes it: with its range searched by the loss, or as it
/// is.
template <class Grid, class F>
decltype(auto) visit_search(bool search, F&& f) {
    return search ? f.template operator()<searched_by_loss<Grid>>() : f.template operator()<Grid>();
}

/// Calls `f.template operator()<Order>()`.
template <class F>
decltype(auto) visit_order(order_kind order, F&& f) {
    switch (order) {
        case order_kind::natural: return f.template operator()<natural_order>();
        case order_kind::act: return f.template operator()<act_order>();
        case order_kind::act_static: return f.template operator()<act_order_static>();
        case order_kind::group_aware: return f.template operator()<group_aware_order>();
    }
    throw unsupported_error("order: unknown kind");
}

}  // namespace gptq
