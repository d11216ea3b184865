// What the CUDA backend makes of a GPU: products with quantized weights in GB/s beside the memory's peak and in TFLOP/s
// beside cuBLAS in half, and the time to quantize a layer. Prints Markdown tables. Without a GPU it says so and ends
// with status 77.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <iostream>
#include <random>
#include <utility>
#include <vector>

#include <gptq/cuda.hpp>

namespace {

using gptq::cuda_backend;
using gptq::cuda_prepared;
using gptq::half;
using gptq::cuda::device_machine;
using gptq::cuda::device_matrix;

constexpr std::size_t out_features = 11008, in_features = 4096;
constexpr int products_of_run = 20;

/// The median seconds of `work` on the device, over runs that follow three others. A run does it `times` one right after
/// the other, as a model does its layers, so that the way from the host to the device does not count.
template <class Work>
double seconds_of(const device_machine& gpu, const Work& work, int times = 1) {
    constexpr int warm_up = 3, runs = 20;
    std::vector<double> seconds;
    for (int i = 0; i < warm_up + runs; ++i) {
        gptq::cuda::event start, end;
        start.record(gpu.stream());
        for (int j = 0; j < times; ++j) work();
        end.record(gpu.stream());
        const double passed = end.seconds_since(start);
        if (i >= warm_up) seconds.push_back(passed / times);
    }
    std::sort(seconds.begin(), seconds.end());
    return seconds[seconds.size() / 2];
}

struct device_facts {
    double memory_bytes_per_second;  // as its clock and its bus promise
    std::size_t cache_bytes;
};

int attribute(cudaDeviceAttr which, int device) {
    int value = 0;
    gptq::cuda::check(cudaDeviceGetAttribute(&value, which, device), "cudaDeviceGetAttribute");
    return value;
}

device_facts print_device(int device) {
    cudaDeviceProp properties{};
    gptq::cuda::check(cudaGetDeviceProperties(&properties, device), "cudaGetDeviceProperties");
    const double clock = 1e3 * attribute(cudaDevAttrMemoryClockRate, device);
    const double bytes = attribute(cudaDevAttrGlobalMemoryBusWidth, device) / 8.0;
    const device_facts facts{2.0 * clock * bytes, static_cast<std::size_t>(properties.l2CacheSize)};
    std::printf("%s, sm_%d%d, %d multiprocessors, %.0f GB/s of memory, %zu MB of second-level cache\n\n",
                properties.name, properties.major, properties.minor, properties.multiProcessorCount,
                facts.memory_bytes_per_second * 1e-9, facts.cache_bytes >> 20);
    return facts;
}

/// Bytes a second that the memory gives and takes when the runtime copies 1 GB.
double copy_rate(const device_machine& gpu) {
    constexpr std::size_t bytes = std::size_t{1} << 30;
    const auto from = gpu.make_matrix<char>(1, bytes);
    auto to = gpu.make_matrix<char>(1, bytes);
    const double seconds = seconds_of(gpu, [&] {
        gptq::cuda::check(
            cudaMemcpyAsync(to.view().data, from.view().data, bytes, cudaMemcpyDeviceToDevice, gpu.stream()),
            "cudaMemcpyAsync");
    });
    return 2.0 * static_cast<double>(bytes) / seconds;
}

gptq::quantized_layer random_layer(int bits) {
    std::mt19937 random(1);
    gptq::quantized_layer q;
    gptq::allocate(q, bits, false, out_features, in_features, 128);
    for (auto& c : q.codes) c = static_cast<std::uint8_t>(random() % (1u << bits));
    for (auto& z : q.zeros) z = static_cast<std::uint8_t>(random() % (1u << bits));
    std::fill(q.scales.begin(), q.scales.end(), gptq::round_to_half(0.01f));
    return q;
}

/// As many copies of a layer as the cache cannot hold, used in turn: each product reads its weights from memory.
std::vector<cuda_prepared> prepare_copies(int bits, const cuda_backend& gpu, std::size_t cache_bytes) {
    const auto q = random_layer(bits);
    std::vector<cuda_prepared> copies;
    do {
        copies.push_back(gptq::prepare(q, gpu));
    } while (copies.size() * copies.front().bytes() < 3 * cache_bytes);
    return copies;
}

/// Numbers on the device that are not all alike: tensor cores are faster on zeros.
device_matrix<half> random_on_device(const device_machine& gpu, std::size_t rows, std::size_t cols) {
    std::mt19937 random(3);
    gptq::matrix<half> m(rows, cols);
    for (std::size_t i = 0; i < rows * cols; ++i)
        m.data()[i] = gptq::narrow<half>(static_cast<float>(random() % 2001) * 1e-3f - 1.0f);
    auto made = gpu.room_for<half>(rows, cols);
    gptq::cuda::copy(std::as_const(m).view(), made.view(), gpu.stream());
    return made;
}

/// As many copies of dense weights in half as the cache cannot hold.
std::vector<device_matrix<half>> dense_copies(const device_machine& gpu, std::size_t cache_bytes) {
    constexpr std::size_t bytes = out_features * in_features * sizeof(half);
    std::vector<device_matrix<half>> copies;
    do {
        copies.push_back(random_on_device(gpu, out_features, in_features));
    } while (copies.size() * bytes < 3 * cache_bytes);
    return copies;
}

/// cuBLASLt in half with dense weights that come from memory as well.
double dense_seconds(const device_machine& gpu, const std::vector<device_matrix<half>>& weights, std::size_t rows) {
    const auto X = random_on_device(gpu, rows, in_features);
    auto Y = gpu.make_matrix<half>(rows, out_features);
    std::size_t turn = 0;
    const auto multiply = [&] {
        const device_matrix<half>& W = weights[turn++ % weights.size()];
        gpu.multiply_transposed(X.view(), W.view(), Y.view(), 0.0f);
    };
    return seconds_of(gpu, multiply, products_of_run);
}

double quantized_seconds(const std::vector<cuda_prepared>& layers, std::size_t rows) {
    const device_machine& gpu = layers.front().machine();
    const auto X = random_on_device(gpu, rows, in_features);
    auto Y = gpu.make_matrix<half>(rows, out_features);
    std::size_t turn = 0;
    const auto multiply = [&] { layers[turn++ % layers.size()].multiply<half>(X.view(), Y.view()); };
    return seconds_of(gpu, multiply, products_of_run);
}

void bench_products(const cuda_backend& gpu, const device_facts& facts) {
    std::printf("A copy within the memory reads and writes %.0f GB/s.\n", copy_rate(gpu.machine()) * 1e-9);
    std::printf("Layer of %zu x %zu, groups of 128, asymmetric, inputs in half.\n\n", out_features, in_features);
    std::printf(
        "| bits | rows | time | of packed weights | of the peak | TFLOP/s | cuBLAS in half | times as fast |\n");
    std::printf("|---|---|---|---|---|---|---|---|\n");
    const std::size_t all_rows[] = {1, 2, 4, 8, 16, 32, 64, 128, 256, 2048};
    std::vector<double> dense;
    const auto weights = dense_copies(gpu.machine(), facts.cache_bytes);
    for (const std::size_t rows : all_rows) dense.push_back(dense_seconds(gpu.machine(), weights, rows));
    for (const int bits : {4, 3, 2, 8}) {
        const auto layers = prepare_copies(bits, gpu, facts.cache_bytes);
        for (std::size_t i = 0; i < std::size(all_rows); ++i) {
            const double seconds = quantized_seconds(layers, all_rows[i]);
            const double rate = static_cast<double>(layers.front().bytes()) / seconds;
            const double flops = 2.0 * static_cast<double>(all_rows[i] * out_features * in_features);
            std::printf("| %d | %zu | %.1f us | %.0f GB/s | %.0f %% | %.1f | %.1f us, %.1f TFLOP/s | %.2f |\n", bits,
                        all_rows[i], seconds * 1e6, rate * 1e-9, 100.0 * rate / facts.memory_bytes_per_second,
                        flops / seconds * 1e-12, dense[i] * 1e6, flops / dense[i] * 1e-12, dense[i] / seconds);
        }
    }
    std::printf("\n");
}

gptq::tensor2<float> random_matrix(std::size_t rows, std::size_t cols) {
    std::mt19937 random(2);
    std::normal_distribution<float> normal;
    auto m = gptq::make_tensor2<float>(rows, cols);
    for (float& x : m) x = normal(random);
    return m;
}

void bench_quantize(const cuda_backend& gpu) {
    using w4 = gptq::scheme<4, gptq::group_size<128>, gptq::asymmetric, gptq::act_order>;
    const auto W = random_matrix(out_features, in_features), X = random_matrix(2048, in_features);
    gptq::basic_hessian<cuda_backend> h(in_features, gpu);
    const double gram = seconds_of(gpu.machine(), [&] { h.add(X); });
    auto f = gptq::factorize<w4>(h, {}, gpu);
    const double factor = seconds_of(gpu.machine(), [&] { f = gptq::factorize<w4>(h, {}, gpu); });
    const double solve = seconds_of(gpu.machine(), [&] { gptq::quantize<w4>(W, f); });
    std::printf("| quantizing a layer of %zu x %zu, 4 bits, act-order | time |\n|---|---|\n", out_features,
                in_features);
    std::printf("| Hessian of 2048 tokens, copied from host memory | %.1f ms |\n", gram * 1e3);
    std::printf("| order, damp and factor it | %.1f ms |\n", factor * 1e3);
    std::printf("| the solver, weights and codes copied | %.1f ms |\n", solve * 1e3);
}

}  // namespace

int main() {
    if (gptq::cuda::device_count() == 0) {
        std::cerr << "skipped: there is no GPU here\n";
        return 77;
    }
    const cuda_backend gpu;
    const device_facts facts = print_device(gpu.machine().device());
    bench_products(gpu, facts);
    bench_quantize(gpu);
}
