// Quantizing a layer beside what it costs at least: the products of N K^2 flops that feed errors back and one Cholesky
// factorization; accumulating a Hessian beside BLAS's ssyrk.
//
// What is compared is timed in turns, iteration by iteration, because machines are shared: the ratio that is reported
// is the median of the ratios.
#include <algorithm>
#include <cstddef>
#include <functional>
#include <map>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include <benchmark/benchmark.h>

#include <gptq/gptq.hpp>

#include "timing.hpp"

namespace {

using timing::median, timing::seconds_of;

/// Something to time: does it once and returns the seconds.
using timed = std::function<double()>;

/// `work` and `bound` in turns; the time of an iteration is that of the work alone.
void compare(benchmark::State& state, const timed& work, const timed& bound) {
    work();  // touches all memory once
    std::vector<double> times, bounds, ratios;
    for (auto _ : state) {
        bounds.push_back(bound());
        times.push_back(work());
        ratios.push_back(times.back() / bounds.back());
        state.SetIterationTime(times.back());
    }
    state.counters["median_ms"] = median(times) * 1e3;
    state.counters["bound_ms"] = median(bounds) * 1e3;
    state.counters["ratio"] = median(ratios);
}

gptq::tensor2<float> random_matrix(std::size_t rows, std::size_t cols) {
    std::mt19937 random(1);
    std::normal_distribution<float> normal;
    auto X = gptq::make_tensor2<float>(rows, cols);
    for (float& x : X) x = normal(random);
    return X;
}

constexpr std::size_t tokens = 2048;

/// The Hessian of as many random inputs as features, so that nothing is shrunk for want of evidence; built once for
/// each number of features.
const gptq::hessian<float>& hessian_of(std::size_t in_features) {
    static std::map<std::size_t, gptq::hessian<float>> built;
    const auto [entry, is_new] = built.try_emplace(in_features, in_features);
    if (is_new) entry->second.add(random_matrix(in_features, in_features));
    return entry->second;
}

/// What any GPTQ solver has to compute: N K^2 flops of products, and the factor of [K, K].
double seconds_of_floor(const gptq::tensor2<float>& W, const gptq::hessian<float>& h) {
    const std::size_t N = W.shape()[0], K = h.in_features();
    gptq::matrix<float> H(K, K), product(N, K / 2);
    h.backend().download(h.upper(), H.view());
    for (std::size_t k = 0; k < K; ++k) H(k, k) *= 1.01f;  // damped
    return seconds_of([&] {
        gptq::blas::gemm(gptq::view_of(W), std::as_const(H).view().columns(0, K / 2), product.view(), 1.0f, 0.0f);
        if (!gptq::blas::potrf(H.view(), gptq::blas::triangle::upper)) std::abort();
    });
}

template <class S>
void quantize(benchmark::State& state, std::size_t out_features, std::size_t in_features) {
    const gptq::hessian<float>& h = hessian_of(in_features);
    const auto W = random_matrix(out_features, in_features);
    compare(
        state, [&] { return seconds_of([&] { benchmark::DoNotOptimize(gptq::quantize<S>(W, h)); }); },
        [&] { return seconds_of_floor(W, h); });
}

void accumulate(benchmark::State& state, std::size_t in_features) {
    const auto X = random_matrix(tokens, in_features);
    gptq::hessian<float> h(in_features);
    gptq::matrix<float> H(in_features, in_features);
    compare(
        state, [&] { return seconds_of([&] { h.add(X); }); },
        [&] { return seconds_of([&] { gptq::blas::syrk_upper(gptq::view_of(X), H.view(), 1.0f, 1.0f); }); });
}

template <class S>
void add(const std::string& scheme, std::size_t out_features, std::size_t in_features, int iterations) {
    const std::string shape = std::to_string(out_features) + "x" + std::to_string(in_features);
    benchmark::RegisterBenchmark((scheme + "/" + shape).c_str(),
                                 [=](benchmark::State& s) { quantize<S>(s, out_features, in_features); })
        ->Iterations(iterations)
        ->UseManualTime()
        ->Unit(benchmark::kMillisecond);
}

}  // namespace

int main(int argc, char** argv) {
    benchmark::Initialize(&argc, argv);
    const std::size_t threads = gptq::kernels::default_threads();
    if (openblas_set_num_threads) openblas_set_num_threads(static_cast<int>(threads));
    benchmark::AddCustomContext("threads", std::to_string(threads));
    if (openblas_get_corename) benchmark::AddCustomContext("openblas_core", openblas_get_corename());
    using gptq::scheme, gptq::group_size, gptq::symmetric;
    using w4 = scheme<4, group_size<128>, symmetric>;
    add<w4>("w4", 1024, 1024, 21);
    add<w4>("w4", 4096, 4096, 7);
    add<w4>("w4", 4096, 11008, 3);
    add<scheme<4, group_size<128>, symmetric, gptq::act_order>>("w4_act_order", 4096, 4096, 7);
    add<scheme<4, group_size<128>, symmetric, gptq::group_aware_order>>("w4_group_aware", 4096, 4096, 7);
    add<scheme<4, group_size<128>, gptq::searched_by_loss<symmetric>>>("w4_searched_by_loss", 4096, 4096, 7);
    for (const std::size_t in_features : {std::size_t{1024}, std::size_t{4096}})
        benchmark::RegisterBenchmark(("hessian/" + std::to_string(in_features)).c_str(),
                                     [=](benchmark::State& s) { accumulate(s, in_features); })
            ->Iterations(11)
            ->UseManualTime()
            ->Unit(benchmark::kMillisecond);
    benchmark::RunSpecifiedBenchmarks();
}
