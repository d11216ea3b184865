// Whole models by the kernels of the CUDA backend, run on the host: logits beside the CPU's, and the codes of a quantized
// model beside its codes.
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <random>
#include <span>
#include <string>
#include <vector>

#include <gptq/backends/cuda/host_executed_backend.hpp>
#include <gptq/backends/cuda/model_backend.hpp>
#include <gptq/io/quantized_tensors.hpp>
#include <gptq/model/decoder.hpp>
#include <gptq/model/generate.hpp>
#include <gptq/model/model_quantizer.hpp>
#include <gptq/model/perplexity.hpp>
#include <gptq/model/quantize_model.hpp>

#include "program/tiny_model.hpp"
#include "support/catch.hpp"
#include "support/golden_models.hpp"
#include "support/temp_dir.hpp"

namespace io = gptq::io;
namespace model = gptq::model;
using gptq::cuda::held_form;
using gptq::cuda::host_machine;

namespace {

template <class T>
using host_model = gptq::cuda::basic_model_backend<T, host_machine>;

static_assert(model::ModelBackend<host_model<float>>);
static_assert(model::ModelBackend<host_model<gptq::half>>);
static_assert(model::ModelBackend<host_model<gptq::bfloat16>>);

/// The largest difference of logits beside the largest logit.
double difference(const gptq::tensor2<float>& a, const gptq::tensor2<float>& b) {
    double worst = 0.0, largest = 0.0;
    for (std::size_t i = 0; i < a.size(); ++i) {
        worst = std::max(worst, std::fabs(double{a.data()[i]} - double{b.data()[i]}));
        largest = std::max(largest, std::fabs(double{b.data()[i]}));
    }
    return std::isfinite(worst) ? worst / largest : 1e9;
}

template <class T>
gptq::tensor2<float> logits_of(const io::model_folder& folder, std::span<const std::int32_t> ids) {
    return model::basic_decoder<host_model<T>>::load(folder, host_model<T>(host_machine())).logits(ids);
}

}  // namespace

TEST_CASE("logits of every architecture are the CPU's, but for rounding", "[many][openmp]") {
    for (const auto& name : gptq_test::golden_model_names) {
        const gptq_test::golden_model golden(name);
        const io::model_folder folder(golden.folder);
        auto ids = golden.logit_ids();
        ids.resize(std::min<std::size_t>(ids.size(), 4));
        const auto expected = model::decoder::load(folder).logits(ids);
        INFO(name);
        CHECK(difference(logits_of<float>(folder, ids), expected) < 1e-5);
        if (std::string(name) != "gemma3" && std::string(name) != "opt-projected") continue;
        CHECK(difference(logits_of<gptq::half>(folder, ids), expected) < 1e-2);
        CHECK(difference(logits_of<gptq::bfloat16>(folder, ids), expected) < 8e-2);
    }
}

TEST_CASE("tokens read one after the other give the logits of the whole text", "[openmp]") {
    const gptq_test::golden_model golden("llama");
    const io::model_folder folder(golden.folder);
    auto ids = golden.logit_ids();
    ids.resize(5);
    const host_model<float> gpu{host_machine()};
    const auto decoder = model::basic_decoder<host_model<float>>::load(folder, gpu);
    const auto whole = decoder.logits(ids);
    model::basic_kv_cache<host_model<float>> cache(decoder.config(), ids.size(), gpu);
    decoder.append(std::span<const std::int32_t>(ids).first(3), cache);
    decoder.append(std::span<const std::int32_t>(ids).subspan(3, 1), cache);
    const auto last = decoder.append(std::span<const std::int32_t>(ids).subspan(4), cache);
    for (std::size_t i = 0; i < last.size(); ++i) CHECK(last(i) == Approx(whole(4, i)).epsilon(1e-4).margin(1e-5));
    const auto scored = model::evaluate_perplexity(decoder, ids);
    CHECK(scored.perplexity == Approx(model::evaluate_perplexity(model::decoder::load(folder), ids).perplexity));
}

namespace {

struct quantized_models {
    gptq_test::temp_dir temporary;
    model::token_windows windows{{}, 8};
    model::quantize_model_options options;

    quantized_models() {
        gptq_test::write_tiny_model(temporary.path() / "source",
                                    {.hidden = 32, .intermediate = 64, .heads = 2, .kv_heads = 2});
        std::mt19937 random(5);
        for (std::size_t i = 0; i < 16 * windows.length; ++i)
            windows.tokens.push_back(static_cast<std::int32_t>(random() % 256));
        options.config.settings.group_size = 32;
        options.config.settings.damp_percent = 0.01;
    }

    /// The sum of the modules' errors.
    template <class... Backend>
    double operator()(const std::string& name, const Backend&... backend) const {
        const io::model_folder source(temporary.path() / "source");
        double error = 0.0;
        for (const auto& record : model::quantize_model(source, temporary.path() / name, windows, options,
                                                        model::model_observer_ref(), backend...)
                                      .modules)
            error += record.error;
        return error;
    }

    io::model_folder folder(const std::string& name) const { return io::model_folder(temporary.path() / name); }
};

/// How many codes of all layers differ.
std::size_t different_codes(const io::model_folder& a, const io::model_folder& b) {
    const auto config = *io::quantization_config::parse(a);
    std::size_t different = 0;
    for (const std::string& name : a.tensor_names()) {
        if (!name.ends_with(".qweight")) continue;
        const std::string module = name.substr(0, name.size() - std::string(".qweight").size());
        const auto x = io::read_quantized(a, config, module), y = io::read_quantized(b, config, module);
        for (std::size_t i = 0; i < x.codes.size(); ++i) different += x.codes.data()[i] != y.codes.data()[i];
    }
    return different;
}

}  // namespace

TEST_CASE("a model quantized in float has the CPU's codes, one quantized in half its error", "[many][openmp]") {
    quantized_models models;
    const double error = models("cpu");
    CHECK(error > 0.0);
    models("gpu", host_model<float>(host_machine(), held_form::dense));
    CHECK(different_codes(models.folder("cpu"), models.folder("gpu")) == 0);
    // Inputs in half: a code that falls to the other side moves those after it in its row.
    CHECK(models("half", host_model<gptq::half>(host_machine(), held_form::dense)) == Approx(error).epsilon(0.01));
    // Sums for drift are taken in another order, and their differences are small ones of large numbers.
    models.options.config.settings.correct_drift = true;
    const double best = models("cpu-best");
    CHECK(models("gpu-best", host_model<float>(host_machine(), held_form::dense)) == Approx(best).epsilon(0.01));
}

TEST_CASE("a quantized model runs from its codes", "[openmp]") {
    const quantized_models models;
    models("cpu");
    const auto folder = models.folder("cpu");
    const std::vector<std::int32_t> ids{3, 1, 4, 1, 5};
    const auto expected = model::decoder::load(folder).logits(ids);
    CHECK(difference(logits_of<float>(folder, ids), expected) < 1e-5);
    CHECK(difference(logits_of<gptq::half>(folder, ids), expected) < 1e-2);
}
