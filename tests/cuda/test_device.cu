// What only a GPU can show: that the PTX wrappers do what kernel_context says, that the kernels do on a device what
// they do on the host, and that cuda_backend conforms. Without a GPU it says so and ends with status 77.
#define CATCH_CONFIG_RUNNER
#include "support/catch.hpp"

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <iostream>
#include <random>
#include <type_traits>
#include <vector>

#include <gptq/backends/cuda/host_executed_backend.hpp>
#include <gptq/backends/cuda/multi_gpu.hpp>
#ifdef GPTQ_HAVE_NCCL
#include <gptq/backends/cuda/nccl.hpp>
#endif
#include <gptq/cuda.hpp>
#include <gptq/testing/conformance.hpp>

#include "cuda/wrapper_kernels.hpp"
#include "support/random_layer.hpp"

namespace {

using namespace gptq_test;
using gptq::cuda_backend;
using gptq::matrix;
using gptq::cuda::host_executed_backend;

matrix<std::uint32_t> random_words(std::size_t rows, std::size_t cols) {
    std::mt19937 random(5);
    matrix<std::uint32_t> words(rows, cols);
    for (std::size_t i = 0; i < rows * cols; ++i) words.data()[i] = static_cast<std::uint32_t>(random());
    return words;
}

template <class T>
bool equal(const matrix<T>& a, const matrix<T>& b) {
    return std::equal(a.data(), a.data() + a.rows() * a.cols(), b.data(), b.data() + b.rows() * b.cols());
}

/// Runs a kernel of wrapper_kernels.hpp on both machines.
template <class Kernel>
void check_wrapper() {
    const gptq::cuda::launch_shape shape{3, Kernel::block_threads, 8192};
    const auto in = random_words(shape.blocks * shape.threads, Kernel::in_words);
    matrix<std::uint32_t> expected(in.rows(), Kernel::out_words), got(in.rows(), Kernel::out_words);
    gptq::cuda::host_launch(shape, Kernel{in.view(), expected.view()});

    const gptq::cuda::device_machine gpu;
    const auto lent = gpu.lend(in.view());
    auto out = gpu.make_matrix<std::uint32_t>(got.rows(), got.cols());
    gpu.launch(shape, Kernel{lent.view(), out.view()});
    gpu.download(out.view(), got.view());
    INFO(Kernel::name);
    CHECK(equal(got, expected));
}

/// A quantized layer with codes, zero points and an order of groups at random.
gptq::quantized_layer random_quantized(int bits, std::size_t N, std::size_t K, std::size_t group_features) {
    std::mt19937 random(9);
    gptq::quantized_layer q;
    gptq::allocate(q, bits, false, N, K, group_features);
    for (auto& c : q.codes) c = static_cast<std::uint8_t>(random() % (1u << bits));
    for (auto& z : q.zeros) z = static_cast<std::uint8_t>(1 + random() % ((1u << bits) - 1));
    for (auto& s : q.scales) s = gptq::round_to_half(0.01f + 0.001f * static_cast<float>(random() % 16));
    std::shuffle(q.g_idx.begin(), q.g_idx.end(), random);
    return q;
}

/// The largest difference over the largest magnitude.
double difference(const gptq::tensor2<float>& a, const gptq::tensor2<float>& b) {
    double worst = 0.0, largest = 0.0;
    for (std::size_t i = 0; i < a.size(); ++i) {
        worst = std::max(worst, std::fabs(double{a.data()[i]} - double{b.data()[i]}));
        largest = std::max(largest, std::fabs(double{b.data()[i]}));
    }
    return worst / largest;
}

template <class T>
void check_products(int bits) {
    const auto q = random_quantized(bits, 200, 520, 128);
    const auto on_gpu = gptq::prepare(q, cuda_backend{});
    const auto on_host = gptq::prepare(q, host_executed_backend{});
    const double rounding = std::is_same_v<T, gptq::half> ? std::ldexp(1.0, -10) : std::ldexp(1.0, -7);
    for (const std::size_t rows : {1, 8, 9, 17, 32, 33, 100}) {
        CAPTURE(bits, rows);
        const auto X = gptq_test::random_inputs(rows, 520);
        const auto got = gptq::matmul<T>(X, on_gpu);
        CHECK(difference(got, gptq::matmul<T>(X, on_host)) <= 2.0 * rounding);
        const bool repeats = got == gptq::matmul<T>(X, on_gpu);
        CHECK(repeats);
    }
}

}  // namespace

TEST_CASE("PTX wrappers do what the host context does") {
    check_wrapper<tells_who_it_is>();
    check_wrapper<passes_through_shared>();
    check_wrapper<copies_asynchronously>();
    check_wrapper<shuffles>();
    check_wrapper<loads_matrices>();
    check_wrapper<multiplies_matrices<gptq::half>>();
    check_wrapper<multiplies_matrices<gptq::bfloat16>>();
    check_wrapper<rounds<gptq::half>>();
    check_wrapper<rounds<gptq::bfloat16>>();
}

TEST_CASE("cuda_backend conforms") {
    CHECK(gptq::testing::check_backend(cuda_backend{}) == gptq::testing::violations{});
}

TEST_CASE("a Hessian in TF32 is close to one in float") {
    const auto layer = gptq_test::make_layer(1, 96, 500, 31);
    const cuda_backend gpu({.gram = gptq::cuda::gram_precision::tf32});
    gptq::basic_hessian<cuda_backend> coarse(96, gpu);
    gptq::hessian<float> exact(96);
    coarse.add(layer.X.view());
    exact.add(layer.X.view());
    matrix<float> got(96, 96);
    gpu.download(coarse.upper(), got.view());
    for (std::size_t i = 0; i < 96; ++i) CHECK(got(i, i) == Approx(exact.upper()(i, i)).epsilon(2e-3));
}

TEST_CASE("the solver on a GPU finds what it finds on a CPU") {
    using w4 = gptq::scheme<4, gptq::group_size<128>, gptq::asymmetric, gptq::act_order>;
    using w3 = gptq::scheme<3, gptq::group_size<32>, gptq::searched_by_loss<gptq::symmetric>>;
    const auto layer = gptq_test::make_layer(300, 512, 2000, 32);
    const auto check = [&]<class S, class Path = gptq::inverse_free_path>(const gptq::quantize_options& options,
                                                                          const Path& path = {}) {
        gptq::hessian<float> h(512);
        h.add(layer.X.view());
        const auto expected = gptq::quantize<S>(layer.W.view(), h, options, gptq::cpu_backend{}, path);
        const auto got = gptq::quantize<S>(layer.W.view(), h, options, cuda_backend{}, path);
        CHECK(gptq::layer_error(layer.W.view(), got, h) ==
              Approx(gptq::layer_error(layer.W.view(), expected, h)).epsilon(0.01));
    };
    check.operator()<w4>({});
    check.operator()<w3>({});
    check.operator()<w4>({.refine = {.rounds = 1, .codes = false}});
    check.operator()<w4>({.refine = {.rounds = 1, .scales = false}});
    check.operator()<w3>({.refine = {.rounds = 2}});
    check.operator()<w3>({.candidates = 8});
    check.operator()<w4>({}, gptq::paper_path{});
}

TEST_CASE("products on a GPU are those of the host context") {
    for (const int bits : {2, 3, 4, 8}) {
        check_products<gptq::half>(bits);
        check_products<gptq::bfloat16>(bits);
    }
}

TEST_CASE("checkpoint tensors are repacked on the GPU") {
    for (const int bits : {2, 3, 4, 8}) {
        const auto q = random_quantized(bits, 128, 256, 64);
        const auto X = gptq_test::random_inputs(4, 256);
        const auto expected = gptq::matmul(X, gptq::prepare(q, cuda_backend{}));
        const bool v1 =
            gptq::matmul(X, gptq::prepare(gptq::pack<gptq::layout::gptq_v1>(q), cuda_backend{})) == expected;
        const bool v2 =
            gptq::matmul(X, gptq::prepare(gptq::pack<gptq::layout::gptq_v2>(q), cuda_backend{})) == expected;
        CAPTURE(bits);
        CHECK(v1);
        CHECK(v2);
    }
}

TEST_CASE("several GPUs make of a layer what one makes of it") {
    const int count = gptq::cuda::device_count();
    if (count < 2) {
        WARN("skipped: there is one GPU");
        return;
    }
    using w4 = gptq::scheme<4, gptq::group_size<64>, gptq::symmetric>;
    const auto layer = gptq_test::make_layer(101, 256, 1000, 33);
    std::vector<cuda_backend> gpus;
    for (int device = 0; device < count; ++device) gpus.emplace_back(gptq::cuda_options{.device = device});
    gptq::cuda::split_hessian<cuda_backend> h(256, gpus);
    h.add(layer.X.view());
    h.reduce();
    gptq::hessian<float> whole(256);
    whole.add(layer.X.view());
    const double expected = gptq::layer_error(layer.W.view(), gptq::quantize<w4>(layer.W.view(), whole), whole);
    CHECK(gptq::layer_error(layer.W.view(), gptq::cuda::quantize<w4>(layer.W.view(), h), whole) ==
          Approx(expected).epsilon(0.01));
#ifdef GPTQ_HAVE_NCCL
    h.reduce(gptq::cuda::nccl_sum(gpus));
    CHECK(gptq::layer_error(layer.W.view(), gptq::cuda::quantize<w4>(layer.W.view(), h), whole) ==
          Approx(expected).epsilon(0.01));
#endif
}

TEST_CASE("what a device refuses is an exception") {
    CHECK_THROWS_AS(cuda_backend({.device = 1000}), gptq::cuda_error);
    CHECK_THROWS_AS(gptq::cuda::device_machine().make_matrix<float>(std::size_t{1} << 40, 1), gptq::cuda_error);
}

int main(int argc, char** argv) {
    if (gptq::cuda::device_count() == 0) {
        std::cerr << "skipped: there is no GPU here\n";
        return 77;
    }
    return Catch::Session().run(argc, argv);
}
