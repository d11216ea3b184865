// pack and unpack: quantized layers to and from the words of a checkpoint.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>

#include <gptq/concepts.hpp>
#include <gptq/error.hpp>
#include <gptq/groups.hpp>
#include <gptq/half.hpp>
#include <gptq/scheme.hpp>
#include <gptq/xtensor/adapt.hpp>
#include <gptq/xtensor/quantized.hpp>

namespace gptq {

namespace detail {

/// Whether a symmetric layer has a matrix of zero points in layout L. It has one unless L says otherwise with
/// `static constexpr bool stores_symmetric_zeros = false;`.
template <PackLayout L>
constexpr bool stores_zeros(bool sym) {
    if constexpr (requires { L::stores_symmetric_zeros; }) return !sym || L::stores_symmetric_zeros;
    return true;
}

/// visit_bits for the numbers of bits that layout L defines. Throws unsupported_error for others.
template <PackLayout L, class F>
void visit_layout_bits(int bits, F&& f) {
    visit_bits(bits, [&]<int Bits>() {
        if constexpr (L::supports(Bits))
            f.template operator()<Bits>();
        else
            throw unsupported_error("layout: it has no form for " + std::to_string(Bits) +
                                    " bits; choose another layout or number of bits");
    });
}

/// Files hold words as int32, the layouts work on their bits.
inline matrix_view<std::uint32_t> as_words(tensor2<std::int32_t>& m) {
    return {reinterpret_cast<std::uint32_t*>(m.data()), m.shape()[0], m.shape()[1]};
}
inline matrix_view<const std::uint32_t> as_words(const tensor2<std::int32_t>& m) {
    return {reinterpret_cast<const std::uint32_t*>(m.data()), m.shape()[0], m.shape()[1]};
}

inline std::string position_string(std::size_t row, const char* what, std::size_t index) {
    return "row " + std::to_string(row) + ", " + what + " " + std::to_string(index);
}

template <class T>
void check_tensor_shape(const tensor2<T>& m, extent2 expected, const char* what) {
    if (m.shape()[0] == expected.rows && m.shape()[1] == expected.cols) return;
    throw shape_error(std::string(what) + " is " + shape_string(m.shape()[0], m.shape()[1]) + ", expected " +
                      shape_string(expected.rows, expected.cols));
}

/// Throws format_error unless every element of `m` is in [lowest, highest].
inline void check_range(matrix_view<const std::uint8_t> m, int lowest, int highest, const char* what,
                        const char* column, const char* advice) {
    for (std::size_t r = 0; r < m.rows; ++r) {
        const auto outside = [&](std::uint8_t x) { return x < lowest || x > highest; };
        const auto row = m.row(r);
        const auto at = std::find_if(row.begin(), row.end(), outside);
        if (at == row.end()) continue;
        throw format_error(std::string(what) + " " + std::to_string(*at) + " at " +
                           position_string(r, column, static_cast<std::size_t>(at - row.begin())) + " is not in [" +
                           std::to_string(lowest) + ", " + std::to_string(highest) + "]" + advice);
    }
}

inline bool all_equal(const tensor2<std::uint8_t>& m, int value) {
    return std::all_of(m.data(), m.data() + m.size(), [value](std::uint8_t x) { return x == value; });
}

inline void check_g_idx(const tensor1<std::int32_t>& g_idx, std::size_t in_features, std::size_t groups) {
    if (g_idx.size() != in_features)
        throw shape_error("g_idx has " + std::to_string(g_idx.size()) + " entries, expected one for each of the " +
                          std::to_string(in_features) + " input features");
    for (std::size_t k = 0; k < in_features; ++k)
        if (g_idx(k) < 0 || static_cast<std::size_t>(g_idx(k)) >= groups)
            throw format_error("g_idx[" + std::to_string(k) + "] is " + std::to_string(g_idx(k)) + ", but there are " +
                               std::to_string(groups) + " groups");
}

/// The element of a file's scales for output n and group g, whichever way they lie.
template <PackLayout L, class Scales>
auto& scale_at(Scales& scales, std::size_t n, std::size_t g) {
    if constexpr (L::scales_by_group)
        return scales(g, n);
    else
        return scales(n, g);
}

template <PackLayout L>
extent2 scales_shape(std::size_t out_features, std::size_t groups) {
    return L::scales_by_group ? extent2{groups, out_features} : extent2{out_features, groups};
}

template <PackLayout L>
tensor2<half> scales_to_file(const tensor2<float>& scales) {
    const std::size_t out_features = scales.shape()[0], groups = scales.shape()[1];
    const extent2 shape = scales_shape<L>(out_features, groups);
    auto out = make_tensor2<half>(shape.rows, shape.cols);
    for (std::size_t n = 0; n < out_features; ++n)
        for (std::size_t g = 0; g < groups; ++g) {
            const float scale = scales(n, g);
            scale_at<L>(out, n, g) = to_half(scale);
            if (!std::isfinite(scale) || round_to_half(scale) != scale)
                throw format_error("the scale at " + position_string(n, "group", g) +
                                   " is not a half; pass scales through round_to_half before quantizing with them");
        }
    return out;
}

template <PackLayout L>
void scales_from_file(const tensor2<half>& file, tensor2<float>& scales) {
    for (std::size_t n = 0; n < scales.shape()[0]; ++n)
        for (std::size_t g = 0; g < scales.shape()[1]; ++g) {
            const float scale = to_float(scale_at<L>(file, n, g));
            if (!std::isfinite(scale))
                throw non_finite_error("scales: " + position_string(n, "group", g) + " is not finite");
            scales(n, g) = scale;
        }
}

/// Throws where `q` is not what quantized_layer promises, or layout L cannot hold it.
template <PackLayout L>
void check_packable(const quantized_layer& q) {
    const int max_code = (1 << q.bits) - 1;
    if (!q.levels.empty())
        throw unsupported_error(
            "layout: it holds affine layers, scale * (code - zero), and the codes of this one stand for levels of "
            "their "
            "own; quantize by an affine grid (symmetric, asymmetric), or keep the layer as a quantized_layer, which "
            "prepare and dequantize take");
    L::check_shape(q.out_features(), q.in_features());
    check_tensor_shape(q.scales, {q.out_features(), q.groups()}, "scales");
    check_tensor_shape(q.zeros, {q.out_features(), q.groups()}, "zeros");
    check_g_idx(q.g_idx, q.in_features(), q.groups());
    check_range(view_of(q.codes), 0, max_code, "code", "column", "");
    check_range(view_of(q.zeros), L::min_zero, max_code, "zero point", "group",
                L::min_zero > 0 ? ", which is all that this layout holds; choose one that stores zero points as they "
                                  "are (gptq_v2), or a grid with larger ones (asymmetric_from_one)"
                                : "");
    if (!stores_zeros<L>(q.sym) && !all_equal(q.zeros, 1 << (q.bits - 1)))
        throw format_error("the layer says it is symmetric, but not every zero point is " +
                           std::to_string(1 << (q.bits - 1)) + ", and this layout stores none for symmetric layers");
}

/// Throws where the tensors of `t` do not have the shapes of layout L.
template <PackLayout L, int Bits>
void check_packed_shapes(const packed_layer& t, std::size_t groups) {
    L::check_shape(t.out_features, t.in_features);
    check_tensor_shape(t.qweight, L::template code_words<Bits>(t.out_features, t.in_features), "packed codes");
    check_tensor_shape(t.scales, scales_shape<L>(t.out_features, groups), "scales");
    if (stores_zeros<L>(t.sym))
        check_tensor_shape(t.qzeros, L::template zero_words<Bits>(t.out_features, groups), "packed zero points");
    if (t.g_idx.size() != 0) check_g_idx(t.g_idx, t.in_features, groups);
}

}  // namespace detail

/// The tensors that a checkpoint of layout L holds for `q`; bias and names are the file's business.
/// Throws unsupported_error where L has no form for q.bits or the layer is not affine, shape_error where it cannot hold
/// the shape, and format_error where a number cannot be stored exactly: a code or a zero point out of range (a zero of
/// 0 in gptq_v1), a scale that is no half.
template <PackLayout L>
packed<L> pack(const quantized_layer& q) {
    packed<L> t;
    detail::visit_layout_bits<L>(q.bits, [&]<int Bits>() {
        detail::check_packable<L>(q);
        t.bits = q.bits;
        t.sym = q.sym;
        t.out_features = q.out_features();
        t.in_features = q.in_features();
        t.group_features = q.group_features;
        t.scales = detail::scales_to_file<L>(q.scales);
        t.g_idx = q.g_idx;
        const extent2 codes = L::template code_words<Bits>(q.out_features(), q.in_features());
        t.qweight = make_tensor2<std::int32_t>(codes.rows, codes.cols);
        L::template pack_codes<Bits>(view_of(q.codes), detail::as_words(t.qweight));
        if (!detail::stores_zeros<L>(q.sym)) return;
        const extent2 zeros = L::template zero_words<Bits>(q.out_features(), q.groups());
        t.qzeros = make_tensor2<std::int32_t>(zeros.rows, zeros.cols);
        L::template pack_zeros<Bits>(view_of(q.zeros), detail::as_words(t.qzeros));
    });
    return t;
}

namespace detail {

/// f<Bits>(q) with all of a layer but its codes, which have their shape only. Throws as unpack.
template <PackLayout L, class F>
auto with_parameters(const packed_layer& t, F&& f) {
    using result = decltype(f.template operator()<4>(std::declval<quantized_layer&>()));
    std::optional<result> made;
    visit_layout_bits<L>(t.bits, [&]<int Bits>() {
        constexpr std::uint8_t middle = 1u << (Bits - 1);
        const std::size_t group_features = std::min(t.group_features, t.in_features);
        if (group_features == 0) throw shape_error("a layer in groups of 0 input features; a group has at least one");
        check_packed_shapes<L, Bits>(t, group_count(t.in_features, group_features));
        quantized_layer q;
        allocate(q, t.bits, t.sym, t.out_features, t.in_features, group_features);
        if (t.g_idx.size() != 0) q.g_idx = t.g_idx;
        scales_from_file<L>(t.scales, q.scales);
        if (stores_zeros<L>(t.sym))
            L::template unpack_zeros<Bits>(as_words(t.qzeros), view_of(q.zeros));
        else
            std::fill_n(q.zeros.data(), q.zeros.size(), middle);
        q.sym = t.sym && all_equal(q.zeros, middle);
        made = f.template operator()<Bits>(q);
    });
    return *std::move(made);
}

}  // namespace detail

/// The inverse of pack, for layers of any origin. An empty g_idx means k / group_features. The result is `sym` only if
/// t.sym is true of its zero points. Throws unsupported_error where L has no form for t.bits, shape_error where a
/// tensor has not the shape that L gives it, format_error where g_idx names a group that does not exist,
/// non_finite_error for scales that are not finite.
template <PackLayout L>
quantized_layer unpack(const packed_layer& t) {
    return detail::with_parameters<L>(t, [&]<int Bits>(quantized_layer& q) {
        L::template unpack_codes<Bits>(detail::as_words(t.qweight), view_of(q.codes));
        return std::move(q);
    });
}

/// unpack for a layer that is known to be of scheme S. Throws format_error, besides what the other one throws, if it
/// has other bits, another group size, zero points that a symmetric grid does not have, or a g_idx that S's order does
/// not make.
template <PackLayout L, Scheme S>
requires AffineGrid<typename S::grid> quantized<S> unpack(const packed_layer& t) {
    quantized<S> q{unpack<L>(t)};
    const auto refuse = [](const std::string& what) {
        throw format_error("unpack: the layer is not of the scheme asked for: " + what);
    };
    if (q.bits != S::bits)
        refuse("it has " + std::to_string(q.bits) + " bits, the scheme " + std::to_string(int{S::bits}));
    try {
        if (S::group::features(q.in_features(), static_cast<int>(q.group_features)) != q.group_features)
            refuse("its groups have " + std::to_string(q.group_features) + " input features");
    } catch (const option_error& other_size) {
        refuse(other_size.what());
    }
    if (S::grid::sym && !q.sym) refuse("its zero points are not those of a symmetric grid");
    if (!S::order::groups_follow_order)
        for (std::size_t k = 0; k < q.in_features(); ++k)
            if (static_cast<std::size_t>(q.g_idx(k)) != k / q.group_features)
                refuse("its groups follow an act-order, g_idx[" + std::to_string(k) + "] is " +
                       std::to_string(q.g_idx(k)));
    return q;
}

}  // namespace gptq
