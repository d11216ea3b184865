// Products with quantized weights on a machine: prepare once, then Y = X Wq' for any number of rows.
//
// Up to 64 rows take the decode kernel, which reads each packed weight once for every 32 of them. More rows dequantize
// a slab of weights at a time and leave the product to the machine's dense one.
#pragma once

#include <algorithm>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include <gptq/backends/cuda/basic_backend.hpp>
#include <gptq/backends/cuda/context.hpp>
#include <gptq/backends/cuda/decode.hpp>
#include <gptq/backends/cuda/dequantize_kernel.hpp>
#include <gptq/backends/cuda/fragment_order.hpp>
#include <gptq/error.hpp>
#include <gptq/factor.hpp>
#include <gptq/groups.hpp>
#include <gptq/half.hpp>
#include <gptq/layouts/gptq.hpp>
#include <gptq/matrix_like.hpp>
#include <gptq/matrix_view.hpp>
#include <gptq/solver_state.hpp>
#include <gptq/xtensor/adapt.hpp>
#include <gptq/xtensor/pack.hpp>
#include <gptq/xtensor/quantized.hpp>

namespace gptq::cuda {

// ---------------------------------------------------------------------------------------------------------------------
// ProductMachine<M>: a Machine that multiplies by quantized layers as well.
//  1. room_for<T>(r, c) is make_matrix whose elements are not set; both begin at multiples of 16 bytes.
//  2. multiply_transposed(X, W, Y, beta): Y = X W' + beta Y for half or bfloat16, summed in float.
//                                                                                    X [M, K]  W [N, K]  Y [M, N]
//  3. wanted_blocks() is how many blocks of 128 threads a launch should have for the machine to be busy.
// ---------------------------------------------------------------------------------------------------------------------
template <class M>
concept ProductMachine = Machine<M> &&
    requires(const M& m, std::size_t n, matrix_view<const half> a, matrix_view<half> b, matrix_view<const bfloat16> c,
             matrix_view<bfloat16> d) {
    { m.template room_for<half>(n, n).view() } -> std::same_as<matrix_view<half>>;
    m.multiply_transposed(a, a, b, 0.0f);
    m.multiply_transposed(c, c, d, 0.0f);
    { m.wanted_blocks() } -> std::same_as<std::size_t>;
};

namespace detail {

/// Up to so many rows it is faster to read the packed weights twice than to write them out dense and read those: 54 and
/// 86 us for 64 rows of a layer of 11008 x 4096 in 4 bits on an H100, 107 and 89 us for 128.
inline constexpr std::size_t few_rows = 2 * decode_rows;

/// f<Bits>() for the numbers of bits that there are kernels for. Throws unsupported_error for others.
template <class F>
void visit_fragment_bits(int bits, const F& f) {
    switch (bits) {
        case 2: return f.template operator()<2>();
        case 3: return f.template operator()<3>();
        case 4: return f.template operator()<4>();
        case 8: return f.template operator()<8>();
        default:
            throw unsupported_error("prepare: codes of " + std::to_string(bits) +
                                    " bits; there are CUDA kernels for 2, 3, 4 and 8");
    }
}

}  // namespace detail

/// A quantized layer in fragment order in the memory of a machine; see prepare().
template <ProductMachine M>
class basic_prepared {
 public:
    /// For a source of fragment_order.hpp whose views are of the machine's memory. g_idx [K] is in host memory and may
    /// be in any order; where `symmetric`, every zero point is 2^(Bits-1). Throws shape_error where g_idx names a group
    /// that there is not.
    template <int Bits, class Source>
    static basic_prepared pack(const M& machine, const Source& source, std::span<const std::int32_t> g_idx,
                               std::size_t groups, bool symmetric) {
        basic_prepared p(machine, Bits, g_idx, order_slots(source.out_features(), g_idx, groups), symmetric);
        repack<Bits>(p.launcher(), source, p.order_.shape, p.features_.view().data, p.words_.view().data,
                     p.scales_.view().data, symmetric ? nullptr : p.zeros_.view().data);
        return p;
    }

    std::size_t out_features() const { return order_.shape.out_features; }
    std::size_t in_features() const { return in_features_; }
    int bits() const { return bits_; }
    /// The size of codes, scales and zero points: what a product with one row reads.
    std::size_t bytes() const {
        return order_.shape.words(bits_) * sizeof(std::uint32_t) +
               order_.shape.parameters() * (sizeof(half) + (symmetric_ ? 0 : 1));
    }
    const M& machine() const { return machine_; }

    /// Y = X Wq' in the machine's memory, for half or bfloat16, summed in float; returns before it is done on a device.
    /// The same call gives the same bits. X [T, K], Y [T, N]. Throws shape_error where the shapes do not fit.
    template <tensor_element T>
    void multiply(matrix_view<const std::type_identity_t<T>> X, matrix_view<T> Y) const {
        if (X.cols != in_features() || Y.cols != out_features() || Y.rows != X.rows)
            throw shape_error("matmul: X " + shape_string(X.rows, X.cols) + " times a layer " +
                              shape_string(out_features(), in_features()) + " into Y " + shape_string(Y.rows, Y.cols));
        if (X.rows == 0) return;
        if (usable_in_place(order_, X)) return multiply_slots(X, Y);
        auto gathered = machine_.template room_for<T>(X.rows, order_.shape.slots());
        const gather_inputs_kernel<T> gather{features_.view().data, X, gathered.view()};
        machine_.launch(gather.launch(), gather);
        multiply_slots(matrix_view<const T>(gathered.view()), Y);
    }

 private:
    template <class T>
    using memory = decltype(std::declval<const M&>().template room_for<T>(0, 0));

    basic_prepared(const M& machine, int bits, std::span<const std::int32_t> g_idx, slot_order order, bool symmetric)
        : machine_(machine),
          bits_(bits),
          in_features_(g_idx.size()),
          symmetric_(symmetric),
          order_(std::move(order)),
          features_(machine.template room_for<std::int32_t>(1, order_.features.size())),
          words_(machine.template room_for<std::uint32_t>(1, order_.shape.words(bits))),
          scales_(machine.template room_for<half>(1, order_.shape.parameters())),
          zeros_(machine.template room_for<std::uint8_t>(1, symmetric ? 0 : order_.shape.parameters())) {
        const auto lent = machine.lend(gptq::detail::row_of(order_.features));
        const element_kernel<gptq::detail::copy_row_of<std::int32_t>> copy{1, {lent.view(), features_.view()}};
        machine.launch(copy.launch(), copy);
    }

    auto launcher() const {
        return [this](const launch_shape& shape, const auto& kernel) { machine_.launch(shape, kernel); };
    }

    fragment_view weights() const {
        return {order_.shape, words_.view().data, scales_.view().data, symmetric_ ? nullptr : zeros_.view().data};
    }

    /// X in slot order: [T, K or slots].
    template <class T>
    void multiply_slots(matrix_view<const T> X, matrix_view<T> Y) const {
        detail::visit_fragment_bits(bits_, [&]<int Bits>() {
            if (X.rows <= detail::few_rows)
                multiply_few<Bits>(X, Y);
            else
                multiply_many<Bits>(X, Y);
        });
    }

    template <int Bits, class T>
    void multiply_few(matrix_view<const T> X, matrix_view<T> Y) const {
        const std::size_t parts = decode_parts(order_.shape, machine_.wanted_blocks());
        if (parts == 1) return decode<Bits>(launcher(), weights(), X, Y);
        auto workspace = machine_.template room_for<float>(parts * std::min(X.rows, decode_rows), Y.cols);
        decode<Bits>(launcher(), weights(), X, Y, parts, workspace.view());
    }

    template <int Bits, class T>
    void multiply_many(matrix_view<const T> X, matrix_view<T> Y) const {
        constexpr std::size_t slab_elements = std::size_t{1} << 25;  // 64 MB: far more work than starting it
        const std::size_t slots = order_.shape.slots(), strip_elements = slots * strip_features;
        const std::size_t rows = std::max(slab_elements / strip_elements, std::size_t{1}) * strip_features;
        auto slab = machine_.template room_for<T>(std::min(rows, Y.cols), slots);
        for (std::size_t n = 0; n < Y.cols; n += rows) {
            const auto part = slab.view().block(0, std::min(rows, Y.cols - n), 0, slots);
            const dequantize_kernel<Bits, T> dequantize{weights(), n / strip_features, part};
            machine_.launch(dequantize.launch(), dequantize);
            // Slots beyond the columns of X are empty.
            machine_.multiply_transposed(X, matrix_view<const T>(part.columns(0, X.cols)), Y.columns(n, n + part.rows),
                                         0.0f);
        }
    }

    M machine_;
    int bits_;
    std::size_t in_features_;
    bool symmetric_;
    slot_order order_;
    memory<std::int32_t> features_;  // [1, slots]
    memory<std::uint32_t> words_;    // see fragment_view
    memory<half> scales_;
    memory<std::uint8_t> zeros_;  // empty for symmetric layers
};

namespace detail {

template <class L>
concept GptqLayout = std::same_as<L, layout::gptq_v1> || std::same_as<L, layout::gptq_v2>;

/// A layer of a GPTQ checkpoint, its words repacked by the machine.
template <int Bits, GptqLayout L, ProductMachine M>
basic_prepared<M> prepare_words(const packed<L>& t, const M& machine) {
    const std::size_t group_features = std::min(t.group_features, t.in_features);
    if (group_features == 0) throw shape_error("a layer in groups of 0 input features; a group has at least one");
    const std::size_t groups = group_count(t.in_features, group_features);
    gptq::detail::check_packed_shapes<L, Bits>(t, groups);
    std::vector<std::int32_t> g_idx(t.g_idx.begin(), t.g_idx.end());
    for (std::size_t k = g_idx.size(); k < t.in_features; ++k)
        g_idx.push_back(static_cast<std::int32_t>(k / group_features));
    const auto qweight = machine.lend(gptq::detail::as_words(t.qweight));
    const auto qzeros = machine.lend(gptq::detail::as_words(t.qzeros));
    const auto scales = machine.lend(view_of(t.scales));
    constexpr int version = std::same_as<L, layout::gptq_v1> ? 1 : 2;
    const gptq_source<Bits, version> source{qweight.view(), qzeros.view(), scales.view()};
    return basic_prepared<M>::template pack<Bits>(machine, source, g_idx, groups, false);
}

}  // namespace detail
}  // namespace gptq::cuda

namespace gptq {

/// Repacks a layer once for products on the backend's machine. Throws shape_error for a g_idx out of range,
/// unsupported_error for bits other than 2, 3, 4 and 8.
template <cuda::ProductMachine M>
cuda::basic_prepared<M> prepare(const quantized_layer& q, const cuda::basic_backend<M>& backend) {
    const M& machine = backend.machine();
    const const_quantized_view view = q.view();
    if (!view.levels.empty())
        throw unsupported_error(
            "prepare: the codes of this layer stand for levels of their own, and the CUDA kernels multiply by affine "
            "layers only; run it on the CPU, or quantize by an affine grid (symmetric, asymmetric)");
    std::optional<cuda::basic_prepared<M>> made;
    cuda::detail::visit_fragment_bits(q.bits, [&]<int Bits>() {
        const auto codes = machine.lend(view.codes);
        const auto scales = machine.lend(view.scales);
        const auto zeros = machine.lend(view.zeros);
        const cuda::code_source source{codes.view(), scales.view(), zeros.view()};
        made = cuda::basic_prepared<M>::template pack<Bits>(machine, source, view.g_idx, q.groups(), q.sym);
    });
    return *std::move(made);
}

/// The same from the tensors of a checkpoint; those of the gptq layouts go to the machine as they are and are repacked
/// there, others are unpacked first. Throws as unpack, but that scales are not looked at.
template <PackLayout L, cuda::ProductMachine M>
cuda::basic_prepared<M> prepare(const packed<L>& t, const cuda::basic_backend<M>& backend) {
    if constexpr (cuda::detail::GptqLayout<L>) {
        std::optional<cuda::basic_prepared<M>> made;
        cuda::detail::visit_fragment_bits(
            t.bits, [&]<int Bits>() { made = cuda::detail::prepare_words<Bits>(t, backend.machine()); });
        return *std::move(made);
    } else {
        return prepare(unpack<L>(t), backend);
    }
}

/// X Wq' for X [tokens, in_features] in host memory, any readable matrix: rounded to T on the way in, the sums again on
/// the way out. [tokens, out_features]. Throws shape_error where they do not fit.
template <cuda::tensor_element T = half, ReadableMatrix X, cuda::ProductMachine M>
tensor2<float> matmul(const X& x, const cuda::basic_prepared<M>& m) {
    const readable_matrix<float, X> readable(x, "matmul: X");
    const matrix_view<const float> floats = readable.view();
    matrix<T> inputs(floats.rows, floats.cols), outputs(floats.rows, m.out_features());
    for (std::size_t r = 0; r < floats.rows; ++r)
        for (std::size_t c = 0; c < floats.cols; ++c) inputs(r, c) = narrow<T>(floats(r, c));
    const auto lent = m.machine().lend(std::as_const(inputs).view());
    auto room = m.machine().template room_for<T>(outputs.rows(), outputs.cols());
    m.template multiply<T>(lent.view(), room.view());
    m.machine().download(matrix_view<const T>(room.view()), outputs.view());
    auto Y = make_tensor2<float>(outputs.rows(), outputs.cols());
    for (std::size_t r = 0; r < outputs.rows(); ++r)
        for (std::size_t c = 0; c < outputs.cols(); ++c) Y(r, c) = to_float(outputs(r, c));
    return Y;
}

}  // namespace gptq
