// The low-rank terms of layers by the kernels of the CUDA backend, run on the host, beside the CPU's.
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <random>
#include <utility>

#include <gptq/backends/cpu/model_backend.hpp>
#include <gptq/backends/cuda/host_executed_backend.hpp>
#include <gptq/backends/cuda/model_backend.hpp>
#include <gptq/model/stored_layer.hpp>

#include "support/catch.hpp"

namespace model = gptq::model;

namespace {

using host_model = gptq::cuda::basic_model_backend<float, gptq::cuda::host_machine>;

gptq::tensor2<float> random_matrix(std::size_t rows, std::size_t cols, unsigned seed) {
    std::mt19937 random(seed);
    std::normal_distribution<float> normal;
    auto numbers = gptq::make_tensor2<float>(rows, cols);
    for (float& x : numbers) x = normal(random);
    return numbers;
}

model::stored_layer layer_with_terms() {
    model::stored_layer layer;
    layer.weights = model::table(random_matrix(24, 40, 1));
    layer.bias = gptq::make_tensor1<float>(24);
    std::fill(layer.bias.begin(), layer.bias.end(), 0.5f);
    layer.terms.push_back({random_matrix(3, 40, 2), random_matrix(24, 3, 3)});
    layer.terms.push_back({random_matrix(5, 40, 4), random_matrix(24, 5, 5)});
    return layer;
}

void check_alike(const gptq::tensor2<float>& found, const gptq::tensor2<float>& expected) {
    for (std::size_t i = 0; i < expected.size(); ++i)
        CHECK(found.data()[i] == Approx(expected.data()[i]).epsilon(1e-4).margin(1e-4));
}

}  // namespace

TEST_CASE("each product of a layer has its terms") {
    const model::cpu_model_backend cpu;
    const host_model gpu{gptq::cuda::host_machine()};
    const auto mine = gpu.hold(layer_with_terms());
    const auto theirs = cpu.hold(layer_with_terms());
    const auto x = random_matrix(7, 40, 6), start = random_matrix(7, 24, 7);
    const auto inputs = gptq::view_of(std::as_const(x));
    const auto uploaded = gpu.upload(inputs);
    const gptq::matrix_view<const float> gpu_inputs = uploaded.view();

    auto expected = start, found = start;
    const gptq::model::output_of<gptq::model::cpu_model_backend> wanted{theirs, gptq::view_of(expected)};
    cpu.multiply(inputs, {&wanted, 1});
    auto y = gpu.upload(gptq::view_of(std::as_const(start)));
    const gptq::model::output_of<host_model> computed{mine, y.view()};
    gpu.multiply(gpu_inputs, {&computed, 1});
    gpu.read(gptq::matrix_view<const float>(y.view()), gptq::view_of(found));
    check_alike(found, expected);

    expected = start;
    model::cpu_model_backend::scratch memory;
    host_model::scratch none;
    cpu.add_product(inputs, theirs, nullptr, memory, gptq::view_of(expected));
    auto states = gpu.upload(gptq::view_of(std::as_const(start)));
    gpu.add_product(gpu_inputs, mine, nullptr, none, states.view());
    gpu.read(gptq::matrix_view<const float>(states.view()), gptq::view_of(found));
    check_alike(found, expected);
}
