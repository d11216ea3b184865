// What the CUDA backend makes of a GPU: products with quantized weights in GB/s beside the memory's peak and in TFLOP/s
// beside cuBLAS in half, and the time to quantize a layer. Prints Markdown tables. Without a GPU it says so and ends
// with status 77.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <iostream>
#include <random>
#include <vector>

#include <gptq/cuda.hpp>

namespace {

using gptq::cuda_backend;
using gptq::cuda_prepared;
using gptq::half;
using gptq::cuda::device_machine;
using gptq::cuda::device_matrix;

constexpr std::size_t out_features = 11008, in_features = 4096;

/// The median seconds of `work` on the device, over runs that follow three others.
template <class Work>
double seconds_of(const device_machine& gpu, const Work& work) {
    constexpr int warm_up = 3, runs = 20;
    std::vector<double> times;
    for (int i = 0; i < warm_up + runs; ++i) {
        gptq::cuda::event start, end;
        start.record(gpu.stream());
        work();
        end.record(gpu.stream());
        const double seconds = end.seconds_since(start);
        if (i >= warm_up) times.push_back(seconds);
    }
    std::sort(times.begin(), times.end());
    return times[times.size() / 2];
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

/// cuBLASLt in half with dense weights that come from memory as well.
double dense_seconds(const device_machine& gpu, std::size_t rows, std::size_t cache_bytes) {
    constexpr std::size_t bytes = out_features * in_features * sizeof(half);
    std::vector<device_matrix<half>> weights;
    do {
        weights.push_back(gpu.make_matrix<half>(out_features, in_features));
    } while (weights.size() * bytes < 3 * cache_bytes);
    const auto X = gpu.make_matrix<half>(rows, in_features);
    auto Y = gpu.make_matrix<half>(rows, out_features);
    std::size_t turn = 0;
    return seconds_of(gpu, [&] {
        const device_matrix<half>& W = weights[turn++ % weights.size()];
        gpu.multiply_transposed(X.view(), W.view(), Y.view());
    });
}

double quantized_seconds(const std::vector<cuda_prepared>& layers, std::size_t rows) {
    const device_machine& gpu = layers.front().machine();
    const auto X = gpu.make_matrix<half>(rows, in_features);
    auto Y = gpu.make_matrix<half>(rows, out_features);
    std::size_t turn = 0;
    return seconds_of(gpu, [&] { layers[turn++ % layers.size()].multiply<half>(X.view(), Y.view()); });
}

void bench_products(const cuda_backend& gpu, const device_facts& facts) {
    std::printf("Layer of %zu x %zu, groups of 128, asymmetric, inputs in half.\n\n", out_features, in_features);
    std::printf(
        "| bits | rows | time | of packed weights | of the peak | TFLOP/s | cuBLAS in half | times as fast |\n");
    std::printf("|---|---|---|---|---|---|---|---|\n");
    const std::size_t all_rows[] = {1, 2, 4, 8, 16, 32, 64, 256, 2048};
    std::vector<double> dense;
    for (const std::size_t rows : all_rows) dense.push_back(dense_seconds(gpu.machine(), rows, facts.cache_bytes));
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
