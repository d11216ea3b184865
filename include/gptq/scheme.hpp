// What is known about a quantization at compile time, and the one place where a run-time choice becomes such a type.
#pragma once

#include <concepts>
#include <cstddef>
#include <string>

#include <gptq/concepts.hpp>
#include <gptq/error.hpp>
#include <gptq/grids/affine.hpp>
#include <gptq/groups.hpp>
#include <gptq/orders.hpp>

namespace gptq {

/// A quantization scheme: `Bits` per weight (2 to 8), input features per group, the grid of representable values, and
/// the order in which columns are quantized.
template <int Bits, GroupPolicy Group = group_size<128>, class Grid = symmetric, OrderingPolicy Order = natural_order>
requires QuantGrid<Grid, Bits>
struct scheme {
    static_assert(Bits >= 2 && Bits <= 8, "gptq::scheme: the number of bits is 2 to 8");
    static constexpr int bits = Bits;
    using group = Group;
    using grid = Grid;
    using order = Order;
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

/// The orders by their names in programs and files.
enum class order_kind { natural, act, act_static, group_aware };

/// The grids by name; `asym_from_one` keeps every zero point >= 1, as the "gptq" (v1) file format needs; `_by_loss` are
/// the same with their ranges searched in the solver's metric.
enum class grid_kind {
    sym,
    asym,
    asym_from_one,
    searched_sym,
    searched_asym,
    sym_by_loss,
    asym_by_loss,
    asym_from_one_by_loss
};

/// The same grid with its range searched by the loss. Throws unsupported_error for grids that search otherwise.
inline grid_kind searching_by_loss(grid_kind grid) {
    switch (grid) {
        case grid_kind::sym: return grid_kind::sym_by_loss;
        case grid_kind::asym: return grid_kind::asym_by_loss;
        case grid_kind::asym_from_one: return grid_kind::asym_from_one_by_loss;
        default: throw unsupported_error("grid: its range is searched already");
    }
}

/// A scheme chosen at run time. `group_size` -1 means one group per row.
struct scheme_config {
    int bits = 4;
    int group_size = 128;
    grid_kind grid = grid_kind::sym;
    order_kind order = order_kind::natural;
};

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

/// Calls `f.template operator()<Grid>()`.
template <class F>
decltype(auto) visit_grid(grid_kind grid, F&& f) {
    switch (grid) {
        case grid_kind::sym: return f.template operator()<symmetric>();
        case grid_kind::asym: return f.template operator()<asymmetric>();
        case grid_kind::asym_from_one: return f.template operator()<asymmetric_from_one>();
        case grid_kind::searched_sym: return f.template operator()<searched<symmetric>>();
        case grid_kind::searched_asym: return f.template operator()<searched<asymmetric>>();
        case grid_kind::sym_by_loss: return f.template operator()<searched_by_loss<symmetric>>();
        case grid_kind::asym_by_loss: return f.template operator()<searched_by_loss<asymmetric>>();
        case grid_kind::asym_from_one_by_loss: return f.template operator()<searched_by_loss<asymmetric_from_one>>();
    }
    throw unsupported_error("grid: unknown kind");
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

/// Calls `f.template operator()<S>()` where S is the scheme that `config` describes, its group size left dynamic (pass
/// config.group_size in the options). Throws unsupported_error for a number of bits outside 2 to 8.
template <class F>
decltype(auto) visit_scheme(const scheme_config& config, F&& f) {
    return visit_bits(config.bits, [&]<int Bits>() -> decltype(auto) {
        return visit_grid(config.grid, [&]<class Grid>() -> decltype(auto) {
            return visit_order(config.order, [&]<class Order>() -> decltype(auto) {
                return f.template operator()<scheme<Bits, group_size<dynamic>, Grid, Order>>();
            });
        });
    });
}

}  // namespace gptq
