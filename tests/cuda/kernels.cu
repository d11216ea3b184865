// Every kernel, for every number of bits and kind of input, launched as programs launch them: what check_kernels.cmake
// has nvcc compile. Nothing here runs.
#include <cstddef>
#include <cstdint>

#include <gptq/backends/cuda/attention_decode_kernel.hpp>
#include <gptq/backends/cuda/attention_kernel.hpp>
#include <gptq/backends/cuda/decode.hpp>
#include <gptq/backends/cuda/dequantize_kernel.hpp>
#include <gptq/backends/cuda/device_context.hpp>
#include <gptq/backends/cuda/fit_kernel.hpp>
#include <gptq/backends/cuda/fragment_order.hpp>
#include <gptq/backends/cuda/model_kernels.hpp>
#include <gptq/backends/cuda/row_kernels.hpp>
#include <gptq/backends/cuda/solve_kernel.hpp>
#include <gptq/grids/affine.hpp>
#include <gptq/grids/nf4.hpp>
#include <gptq/round_to_nearest.hpp>

namespace {

using namespace gptq::cuda;

template <class Kernel>
void start(const Kernel& kernel) {
    device_launch(kernel.launch(), nullptr, kernel);
}

template <int Bits, class Grid>
void quantizes() {
    start(solve_kernel<Bits, Grid>{});
    start(fit_kernel<Bits, Grid>{});
    start(element_kernel<gptq::detail::round_row<Bits, Grid>>{});
    start(element_kernel<gptq::detail::difference_row<Bits, Grid>>{});
}

template <int Bits, class T>
void products(const fragment_view& weights, const std::int32_t* features, gptq::matrix_view<T> X,
              gptq::matrix_view<T> Y, gptq::matrix_view<float> workspace) {
    const device_launcher launch;
    const gather_inputs_kernel<T> gather{features, X, X};
    launch(gather.launch(), gather);
    decode<Bits, T>(launch, weights, X, Y, 2, workspace);
    const dequantize_kernel<Bits, T> dequantize{weights, 0, Y};
    launch(dequantize.launch(), dequantize);
}

template <int Bits>
void repacks(const code_source& codes, const fragment_shape& shape, const std::int32_t* features, std::uint32_t* words,
             gptq::half* scales, std::uint8_t* zeros) {
    const device_launcher launch;
    repack<Bits>(launch, codes, shape, features, words, scales, zeros);
    repack<Bits>(launch, gptq_source<Bits, 1>{}, shape, features, words, scales, zeros);
    repack<Bits>(launch, gptq_source<Bits, 2>{}, shape, features, words, scales, zeros);
}

template <int Bits>
void kernels() {
    products<Bits, gptq::half>({}, {}, {}, {}, {});
    products<Bits, gptq::bfloat16>({}, {}, {}, {}, {});
    repacks<Bits>({}, {}, {}, {}, {}, {});
}

template <class T>
void attends(const attention_shape& shape, gptq::matrix_view<T> m, gptq::matrix_view<float> workspace) {
    const device_launcher launch;
    attend_decode<T>(launch, shape, nullptr, m, m, m, 1, workspace, m);
    if constexpr (tensor_element<T>)
        detail::visit_head_dim(shape.head_dim, [&]<std::size_t HeadDim>() {
            const attend_kernel<T, HeadDim> kernel{shape, m, m, m, m};
            launch(kernel.launch(), kernel);
        });
}

template <class F>
void start_each(const F& f) {
    start(for_each_element(0, 0, f));
}

template <class T>
void model_parts() {
    start(normalize_kernel<float, T>{});
    start(normalize_kernel<T, T>{});
    start(add_normalized_kernel<T>{});
    start_each(add_element<T>{});
    start_each(add_bias_element<T>{});
    start_each(activate_element<T>{});
    start_each(gate_element<T>{});
    start_each(convert_element<float, T>{});
    start_each(convert_element<T, float>{});
    start_each(convert_element<T, T>{});
    start_each(look_up_element<T>{});
    start_each(gather_element<T>{});
    start_each(scatter_add_element<T>{});
    start_each(rotate_pair<T>{});
    start_each(cap_element{});
}

}  // namespace

void launch_all() {
    model_parts<gptq::half>();
    model_parts<gptq::bfloat16>();
    model_parts<float>();
    start_each(add_repeated_element{});
    start(score_kernel{});
    kernels<2>();
    kernels<3>();
    kernels<4>();
    kernels<8>();
    attends<gptq::half>({}, {}, {});
    attends<gptq::bfloat16>({}, {}, {});
    attends<float>({}, {}, {});
    quantizes<2, gptq::searched<gptq::asymmetric>>();
    quantizes<3, gptq::searched_by_loss<gptq::asymmetric_from_one>>();
    quantizes<4, gptq::symmetric>();
    quantizes<4, gptq::searched_by_loss<gptq::nf4>>();
    quantizes<8, gptq::asymmetric>();
    start(element_kernel<gptq::detail::gather_row>{});
    start(element_kernel<gptq::detail::add_row>{});
    start(element_kernel<permute_feature>{});
    start(element_kernel<gptq::detail::permute_columns>{});
    start(element_kernel<gptq::detail::transposed_difference<float>>{});
    start(element_kernel<anti_transpose_part>{});
    start(dot_kernel{});
}
