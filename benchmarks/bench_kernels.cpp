// Products with quantized weights beside what bounds them on this machine: the memory's read bandwidth for one row of
// inputs, BLAS's product with float weights of the same shape for many.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <random>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <benchmark/benchmark.h>

#include <gptq/gptq.hpp>
#include <gptq/kernels/rows.hpp>

#include "timing.hpp"

extern "C" {
void gptq_bench_sgemv(const char*, const int*, const int*, const float*, const float*, const int*, const float*,
                      const int*, const float*, float*, const int*) __asm__("sgemv_");
}

namespace {

using timing::median, timing::seconds_of;

constexpr std::size_t out_features = 11008, in_features = 4096, group = 128;
constexpr std::size_t prefill_rows = 512;
/// What is read in turn is several times larger than the caches of any machine that this is likely to meet.
constexpr std::size_t bytes_read = std::size_t{512} << 20;

/// The shortest of the runs of some seconds: what the machine can do when nothing else disturbs it.
double shortest(const std::function<void()>& work, double seconds = 3.0) {
    double best = 1e30, spent = 0.0;
    while (spent < seconds) {
        const double taken = seconds_of(work);
        best = std::min(best, taken);
        spent += taken;
    }
    return best;
}

std::vector<float> random_floats(std::size_t count) {
    std::mt19937 random(1);
    std::vector<float> values(count);
    for (float& x : values) x = static_cast<float>(random() % 2000) * 0.001f - 1.0f;
    return values;
}

/// Affine without levels.
gptq::quantized_layer random_layer(int bits, std::span<const float> levels = {}) {
    std::mt19937 random(2);
    gptq::quantized_layer q;
    gptq::allocate(q, bits, false, out_features, in_features, group);
    q.levels.assign(levels.begin(), levels.end());
    const unsigned mask = (1u << bits) - 1u;
    for (auto& c : q.codes) c = static_cast<std::uint8_t>(random() & mask);
    for (auto& z : q.zeros) z = static_cast<std::uint8_t>(levels.empty() ? random() & mask : 0);
    q.scales.fill(gptq::round_to_half(0.01f));  // as files hold them
    return q;
}

/// What results are compared with, measured once, first.
struct bounds {
    double sgemv;  // seconds of one row times float weights
    double sgemm;  // seconds of prefill_rows rows times float weights
};

/// Reads page r, of 4 KiB, with the widest loads there are, some distance ahead of which memory is asked for.
template <std::size_t Ahead>
struct read_page {
    static constexpr std::size_t page = 4096 / sizeof(std::uint64_t), line = 64 / sizeof(std::uint64_t), together = 64;

    const std::uint64_t* memory;

    void operator()(std::size_t r) const {
        const std::uint64_t* next = memory + r * page;
        std::uint64_t sums[together] = {};
        for (std::size_t i = 0; i < page; i += together) {
            for (std::size_t j = 0; Ahead != 0 && j < together; j += line) __builtin_prefetch(next + i + j + Ahead);
            for (std::size_t j = 0; j < together; ++j) sums[j] += next[i + j];
        }
        benchmark::DoNotOptimize(sums);
    }
};

/// Memory that is read as fast as can be: by the best of several ways, in pieces that threads take as they do those of a
/// product.
class readable_memory {
 public:
    readable_memory(const std::byte* begin, const std::byte* end)
        : words_(reinterpret_cast<const std::uint64_t*>(begin)), pages_(static_cast<std::size_t>(end - begin) / 4096) {
        double best = 1e30;
        consider<0>(best);
        consider<256>(best);
        consider<1024>(best);
    }

    std::size_t bytes() const { return pages_ * 4096; }
    double seconds() const {
        return seconds_of([&] { read_(words_, pages_); });
    }

 private:
    template <std::size_t Ahead>
    static void read(const std::uint64_t* words, std::size_t pages) {
        gptq::kernels::in_pieces(pages, gptq::kernels::default_threads(), [&](std::size_t first, std::size_t last) {
            gptq::kernels::run_rows(gptq::best_isa(), read_page<Ahead>{words}, first, last);
        });
    }
    template <std::size_t Ahead>
    void consider(double& best) {
        const double taken = shortest([&] { read<Ahead>(words_, pages_); }, 0.2);
        if (taken >= best) return;
        best = taken;
        read_ = read<Ahead>;
    }

    const std::uint64_t* words_;
    std::size_t pages_;
    void (*read_)(const std::uint64_t*, std::size_t) = nullptr;
};

bounds measure_bounds() {
    if (openblas_set_num_threads) openblas_set_num_threads(static_cast<int>(gptq::kernels::default_threads()));
    const auto W = random_floats(out_features * in_features), X = random_floats(prefill_rows * in_features);
    std::vector<float> Y(prefill_rows * out_features);
    constexpr int n = out_features, k = in_features, one = 1;
    constexpr float alpha = 1.0f, beta = 0.0f;
    // The float weights, 180 MB, are no cache's size either.
    const double sgemv =
        shortest([&] { gptq_bench_sgemv("T", &k, &n, &alpha, W.data(), &k, X.data(), &one, &beta, Y.data(), &one); });
    const double sgemm = shortest([&] {
        gptq::blas::gemm_nt({X.data(), prefill_rows, in_features}, {W.data(), out_features, in_features},
                            {Y.data(), prefill_rows, out_features}, 1.0f, 0.0f);
    });
    return {sgemv, sgemm};
}

/// One row times each of as many layers as make up bytes_read, in turn with reading the memory that they lie in: how fast
/// memory is depends on where in the machine it is, so that only the same memory compares.
template <gptq::Activation A>
void decode(benchmark::State& state, const gptq::quantized_layer& q, const bounds& bound) {
    gptq::weight_memory memory(2 * bytes_read);  // all in one piece
    const auto begin = memory.zeros<std::byte>(1);
    std::vector<gptq::prepared<A>> layers;
    do layers.push_back(gptq::prepare<A>(q, &memory));
    while (layers.size() * layers.front().bytes() < bytes_read);
    const readable_memory same(begin.get(), memory.zeros<std::byte>(1).get());
    const auto x = random_floats(in_features);
    std::vector<float> y(out_features);
    const auto multiply_all = [&] {
        for (const auto& layer : layers)
            layer.multiply(gptq::matrix_view<const float>(x.data(), 1, in_features),
                           gptq::matrix_view<float>(y.data(), 1, out_features));
    };
    const double bytes = static_cast<double>(layers.size() * layers.front().bytes());
    std::vector<double> times, reads, shares;
    for (auto _ : state) {
        reads.push_back(same.seconds() / static_cast<double>(same.bytes()));
        times.push_back(seconds_of(multiply_all));
        shares.push_back(reads.back() * bytes / times.back());
        state.SetIterationTime(times.back());
    }
    const double seconds = median(times);
    state.counters["milliseconds"] = seconds / static_cast<double>(layers.size()) * 1e3;
    state.counters["giga_per_second"] = bytes / seconds * 1e-9;  // bytes
    state.counters["read_giga_per_second"] = 1e-9 / median(reads);
    state.counters["of_bandwidth"] = median(shares);
    state.counters["x_blas"] = bound.sgemv * static_cast<double>(layers.size()) / seconds;
}

template <gptq::Activation A>
void prefill(benchmark::State& state, const gptq::quantized_layer& q, const bounds& bound) {
    const auto layer = gptq::prepare<A>(q);
    const auto X = random_floats(prefill_rows * in_features);
    std::vector<float> Y(prefill_rows * out_features);
    double seconds = 1e30;
    for (auto _ : state) {
        const double taken = seconds_of([&] {
            layer.multiply(gptq::matrix_view<const float>(X.data(), prefill_rows, in_features),
                           gptq::matrix_view<float>(Y.data(), prefill_rows, out_features));
        });
        state.SetIterationTime(taken);
        seconds = std::min(seconds, taken);
    }
    const auto products = static_cast<double>(prefill_rows * out_features * in_features);
    state.counters["milliseconds"] = seconds * 1e3;
    state.counters["giga_per_second"] = products / seconds * 1e-9;
    state.counters["read_giga_per_second"] = 0.0;  // does not apply, but every run must have the same counters
    state.counters["of_bandwidth"] = 0.0;
    state.counters["x_blas"] = bound.sgemm / seconds;
}

template <gptq::Activation A>
void add(const std::string& activation, const std::string& grid, const std::shared_ptr<gptq::quantized_layer>& q,
         const bounds& bound) {
    const std::string suffix = activation + "/" + std::to_string(q->bits) + "_bits" + grid;
    benchmark::RegisterBenchmark(("1_row/" + suffix).c_str(), [=](benchmark::State& s) { decode<A>(s, *q, bound); })
        ->UseManualTime()
        ->Unit(benchmark::kMillisecond);
    if (q->bits != 4) return;
    benchmark::RegisterBenchmark(("512_rows/" + suffix).c_str(), [=](benchmark::State& s) { prefill<A>(s, *q, bound); })
        ->UseManualTime()
        ->Unit(benchmark::kMillisecond);
}

}  // namespace

int main(int argc, char** argv) {
    benchmark::Initialize(&argc, argv);
    const bounds bound = measure_bounds();
    benchmark::AddCustomContext("kernels", std::string(gptq::isa_name(gptq::best_isa())));
    benchmark::AddCustomContext("threads", std::to_string(gptq::kernels::default_threads()));
    benchmark::AddCustomContext("sgemv_ms", std::to_string(bound.sgemv * 1e3));
    benchmark::AddCustomContext("sgemm_ms", std::to_string(bound.sgemm * 1e3));
    if (openblas_get_corename) benchmark::AddCustomContext("openblas_core", openblas_get_corename());
    const auto add_all = [&](const std::string& grid, gptq::quantized_layer layer) {
        const auto q = std::make_shared<gptq::quantized_layer>(std::move(layer));
        add<gptq::activation::exact>("exact", grid, q, bound);
        add<gptq::activation::int16>("int16", grid, q, bound);
        add<gptq::activation::int8>("int8", grid, q, bound);
    };
    for (const int bits : {4, 2, 3, 8}) add_all("", random_layer(bits));
    add_all("_nf4", random_layer(4, gptq::nf4_table::values));
    add_all("_fp4", random_layer(4, gptq::fp4_table::values));
    benchmark::RunSpecifiedBenchmarks();
}
