// quantized: the owning result of quantize() and round_to_nearest().
#pragma once

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <type_traits>
#include <vector>

#include <gptq/groups.hpp>
#include <gptq/half.hpp>
#include <gptq/quantized.hpp>
#include <gptq/scheme.hpp>
#include <gptq/xtensor/adapt.hpp>

namespace gptq {

/// The codes of a layer of N output and K input features in G groups, and what its grid needs to know of each group.
/// The values that codes stand for are the grid's.
struct coded_layer {
    int bits = 4;                    ///< of a code
    bool sym = true;                 ///< every zero point is 2^(bits-1)
    std::size_t group_features = 0;  ///< input features per (full) group; K for one group per row
    tensor2<std::uint8_t> codes;     ///< [N, K], one code a byte, original order of the columns
    tensor2<float> scales;           ///< [N, G], each one a number that a half holds
    tensor2<std::uint8_t> zeros;     ///< [N, G]
    tensor1<std::int32_t> g_idx;     ///< [K], the group of each input feature
    solve_report report;             ///< what happened on the way

    std::size_t out_features() const { return codes.shape()[0]; }  ///< N
    std::size_t in_features() const { return codes.shape()[1]; }   ///< K
    std::size_t groups() const { return scales.shape()[1]; }       ///< G

    quantized_view view() { return {view_of(codes), view_of(scales), view_of(zeros), {g_idx.data(), g_idx.size()}}; }
    const_quantized_view view() const {
        return {view_of(codes), view_of(scales), view_of(zeros), {g_idx.data(), g_idx.size()}};
    }
};

/// A quantized layer whatever its scheme: what files, runtimes and programs pass around. It knows its values without
/// its grid: weight(n, k) = scale * (level of the code - zero).
struct quantized_layer : coded_layer {
    std::vector<float> levels;  ///< [2^bits], of the codes; empty where they are 0, 1, 2, ..., as in affine layers

    quantized_view view() { return with_levels(coded_layer::view()); }
    const_quantized_view view() const { return with_levels(coded_layer::view()); }

 private:
    template <class View>
    View with_levels(View v) const {
        v.levels = levels;
        return v;
    }
};

/// The codes of a grid that is no LevelGrid: they mean nothing without it.
struct layer_without_levels : coded_layer {
    /// Does not compile, and says why.
    template <std::same_as<quantized_layer> Layer>
    operator Layer() const {
        static_assert(std::is_void_v<Layer>,
                      "gptq: a layer outlives its grid only if the grid says what its codes stand for; give the grid "
                      "levels<Bits>(), or `affine` if they are 0, 1, 2, ... (LevelGrid in <gptq/concepts.hpp>)");
        return {};
    }
};

/// A layer quantized by scheme S. Where S has a LevelGrid it is a quantized_layer, which forgets S.
template <Scheme S>
struct quantized : std::conditional_t<LevelGrid<typename S::grid, S::bits>, quantized_layer, layer_without_levels> {
    using scheme_type = S;  ///< the scheme that it was quantized with
};

namespace detail {

inline void allocate_codes(coded_layer& q, int bits, bool sym, std::size_t out_features, std::size_t in_features,
                           std::size_t group_features) {
    q.bits = bits;
    q.sym = sym;
    q.group_features = group_features;
    const std::size_t groups = group_count(in_features, group_features);
    q.codes = make_tensor2<std::uint8_t>(out_features, in_features);
    q.scales = make_tensor2<float>(out_features, groups);
    q.zeros = make_tensor2<std::uint8_t>(out_features, groups);
    q.g_idx = make_tensor1<std::int32_t>(in_features);
    for (std::size_t k = 0; k < in_features; ++k) q.g_idx(k) = static_cast<std::int32_t>(k / group_features);
}

}  // namespace detail

/// Room for an affine layer of `out_features` x `in_features` in groups of `group_features`; g_idx is k /
/// group_features, codes, scales and zeros are not set.
inline void allocate(quantized_layer& q, int bits, bool sym, std::size_t out_features, std::size_t in_features,
                     std::size_t group_features) {
    detail::allocate_codes(q, bits, sym, out_features, in_features, group_features);
    q.levels.clear();
}

/// The same for a layer of scheme S, with the levels of its grid.
template <Scheme S>
void allocate(quantized<S>& q, std::size_t out_features, std::size_t in_features, std::size_t group_features) {
    detail::allocate_codes(q, S::bits, S::grid::sym, out_features, in_features, group_features);
    if constexpr (LevelGrid<typename S::grid, S::bits>) q.levels = levels_of<S::bits>(typename S::grid{});
}

/// A layer packed as a checkpoint holds it. Its layout says the shapes (see gptq/layouts/).
struct packed_layer {
    int bits = 4;     ///< of a code
    bool sym = true;  ///< whether every zero point is 2^(bits-1)
    std::size_t out_features = 0;
    std::size_t in_features = 0;
    std::size_t group_features = 0;  ///< input features of a full group
    tensor2<std::int32_t> qweight;   ///< packed codes
    tensor2<std::int32_t> qzeros;    ///< packed zero points
    tensor2<half> scales;            ///< [G, N] or [N, G], as the layout says
    tensor1<std::int32_t> g_idx;     ///< [K]
};

/// packed_layer that remembers its layout.
template <PackLayout L>
struct packed : packed_layer {
    using layout_type = L;  ///< a PackLayout
};

}  // namespace gptq
