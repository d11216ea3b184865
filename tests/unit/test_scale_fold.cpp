// Folds of scales into what comes before layers: they leave every model as it is where they are legal, and are refused
// with the reason elsewhere; and the scales that AWQ and SmoothQuant choose.
#include <gptq/clip_groups.hpp>
#include <gptq/model/decoder.hpp>
#include <gptq/model/quantize_model.hpp>
#include <gptq/model/scale_fold.hpp>
#include <gptq/model/scale_search.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <map>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

#include "support/catch.hpp"
#include "support/golden_models.hpp"
#include "support/message.hpp"
#include "support/shared.hpp"
#include "support/temp_dir.hpp"

using namespace gptq::model;
using gptq_test::golden_model;
using gptq_test::mentions;
using gptq_test::message_of;

namespace {

/// Numbers in -1/2 to 1/2, as tests/golden/make_awq.py makes them.
class generator {
 public:
    explicit generator(std::uint64_t seed) : state_(seed) {}
    float operator()() {
        state_ = (1103515245 * state_ + 12345) % (std::uint64_t{1} << 31);
        return static_cast<float>(static_cast<double>(state_) / 2147483648.0 - 0.5);
    }

 private:
    std::uint64_t state_;
};

/// From 1/4 to 4.
std::vector<float> some_scales(std::size_t count, generator& random) {
    std::vector<float> s;
    for (std::size_t i = 0; i < count; ++i) s.push_back(std::pow(16.0f, random()));
    return s;
}

model_config config_of(const std::string& name) {
    return read_model_config(gptq::io::model_folder(golden_model(name).folder));
}

std::string obstacle(const std::string& name, std::size_t index, std::size_t site) {
    const model_config config = config_of(name);
    return fold_before(config, describe_block(config, index), site).obstacle;
}

double relative_error(const gptq::tensor2<float>& found, const gptq::tensor2<float>& expected) {
    double difference = 0.0, energy = 0.0;
    for (std::size_t i = 0; i < expected.size(); ++i) {
        difference += std::pow(double{found.data()[i]} - double{expected.data()[i]}, 2);
        energy += std::pow(double{expected.data()[i]}, 2);
    }
    return std::sqrt(difference / energy);
}

/// How many folds of random scales were legal.
std::size_t fold_all(const model_config& config, stored_block& block, generator& random) {
    std::size_t folds = 0;
    for (std::size_t site = 0; site < block.what.sites.size(); ++site) {
        const scale_fold fold = fold_before(config, block.what, site);
        if (!fold.obstacle.empty()) continue;
        fold_scales(block, site, fold, some_scales(fold.scales, random));
        ++folds;
    }
    return folds;
}

}  // namespace

TEST_CASE("every legal fold of every architecture leaves the logits as they are", "[fold]") {
    std::map<std::string, std::size_t> folded;
    for (const std::string& name : gptq_test::golden_model_names) {
        const golden_model golden(name);
        const gptq::io::model_folder files(golden.folder);
        const auto ids = golden.logit_ids();
        const auto expected = decoder::load(files).logits(ids);
        generator random(7);
        stored_model stored = read_stored_model(files);
        const model_config config = stored.config;
        stored.block = [&, read = stored.block](std::size_t i) {
            stored_block block = read(i);
            folded[name] += fold_all(config, block, random);
            return block;
        };
        INFO(name << ": " << folded[name] << " folds");
        CHECK(relative_error(decoder::from(std::move(stored)).logits(ids), expected) < 1e-5);
    }
    CHECK(folded["llama"] == 4 * config_of("llama").blocks);
    CHECK(folded["gemma3"] == 4 * config_of("gemma3").blocks);
    CHECK(folded["gpt-neox"] == 3 * config_of("gpt-neox").blocks);
    CHECK(folded["opt"] == 4 * config_of("opt").blocks);
    CHECK(folded["phi"] == 1 * config_of("phi").blocks);
}

TEST_CASE("a fold that is not legal says why", "[fold]") {
    CHECK(obstacle("phi", 0, 0) == "attention and MLP read the norm before it");
    CHECK(obstacle("phi", 0, 3) == "its input is not linear in the layer before it");
    CHECK(obstacle("olmo2", 0, 0) == "no norm stands before it");
    CHECK(obstacle("opt-projected", 0, 2) == "no norm stands before it");
    CHECK(obstacle("olmo", 0, 0) == "the norm before it has no weights");
    CHECK(obstacle("mixtral", 0, 2) == "the router of the experts reads the norm before it, too");
    CHECK(obstacle("mixtral", 0, 3).empty());

    const gptq::io::model_folder files(golden_model("phi").folder);
    const model_config config = read_model_config(files);
    stored_block block = read_block(config, weight_reader(files), 0);
    const auto complaint = [&](std::size_t site, const std::vector<float>& s) {
        return message_of([&] { fold_scales(block, site, fold_before(config, block.what, site), s); });
    };
    const std::size_t values = config.kv_features();
    CHECK(mentions(complaint(0, std::vector<float>(config.hidden_size, 2.0f)), "takes no scales: attention and MLP"));
    CHECK(mentions(complaint(1, {1.0f}), "not 1"));
    CHECK(mentions(complaint(1, std::vector<float>(values, 0.0f)), "not positive"));
    CHECK(mentions(complaint(1, std::vector<float>(values, INFINITY)), "not positive"));
    block.layers[0][2].weights = gptq::quantized_layer{};
    CHECK(mentions(complaint(1, std::vector<float>(values, 1.0f)), "stored as codes"));
}

TEST_CASE("heads that share keys and values share their scales", "[fold]") {
    const model_config config = config_of("qwen2");
    REQUIRE(config.heads == 2 * config.kv_heads);
    const scale_fold fold = fold_before(config, describe_block(config, 0), 1);
    CHECK(fold.scales == config.kv_features());
    const std::size_t d = config.head_dim;
    CHECK(fold.columns[d] == 0);
    CHECK(fold.columns[2 * d + 1] == d + 1);
}

TEST_CASE("AWQ's search finds the alpha, the losses and the clipping that numpy finds", "[fold]") {
    const std::size_t N = 12, K = 64, T = 48;
    gptq::matrix<float> W(N, K), X(T, K);
    generator weights(1), inputs(2);
    for (std::size_t i = 0; i < N * K; ++i) W.data()[i] = weights();
    for (std::size_t i = 0; i < T * K; ++i) X.data()[i] = inputs() * (i % 16 == 3 ? 30.0f : 1.0f);
    const gptq::cpu_backend cpu;
    const auto hessian_of = [&](const gptq::matrix<float>& x) {
        gptq::basic_hessian<gptq::cpu_backend> H(K, cpu);
        H.add(x.view());
        return H;
    };
    const auto H = hessian_of(X);
    std::vector<double> mean(K);
    for (std::size_t t = 0; t < T; ++t)
        for (std::size_t k = 0; k < K; ++k) mean[k] += std::abs(double{X(t, k)}) / static_cast<double>(T);
    scale_fold fold;
    fold.scales = K;
    fold.columns.resize(K);
    std::iota(fold.columns.begin(), fold.columns.end(), std::size_t{0});

    for (const auto& expected : gptq_test::read_json(gptq_test::source_dir() / "tests" / "golden" / "awq.json")) {
        gptq::quantize_settings settings = gptq::settings::awq(expected["bits"].get<int>());
        settings.group_size = 32;
        const auto format = gptq::io::checkpoint_format::gptq_v2;
        INFO(settings.bits << " bits");
        const std::vector<gptq::matrix_view<const float>> layers{std::as_const(W).view()};
        const found_scales found = search_scales<gptq::cpu_backend>(cpu, layers, H, mean, fold, settings, format);
        CHECK(found.alpha == expected["alpha"].get<double>());
        const auto losses = expected["losses"].get<std::vector<double>>();
        CHECK(std::abs(found.loss / *std::min_element(losses.begin(), losses.end()) - 1.0) < 1e-4);
        for (int i = 0; i < awq_alphas; ++i) {
            const auto s = awq_scales(mean, static_cast<double>(i) / awq_alphas);
            const double loss = loss_with_scales(cpu, std::as_const(W).view(), H, s, settings, format);
            CHECK(std::abs(loss / losses[static_cast<std::size_t>(i)] - 1.0) < 1e-4);
        }

        gptq::matrix<float> scaled(N, K), divided(T, K);
        for (std::size_t k = 0; k < K; ++k) {
            CHECK(std::abs(double{found.s[k]} / expected["scales"][k].get<double>() - 1.0) < 1e-5);
            for (std::size_t n = 0; n < N; ++n) scaled(n, k) = W(n, k) * found.s[k];
            for (std::size_t t = 0; t < T; ++t) divided(t, k) = X(t, k) / found.s[k];
        }
        const auto folded = hessian_of(divided);
        gptq::model::detail::visit_rounding_scheme(settings, format, [&]<class S>() {
            using grid = typename S::grid;
            const auto loss_of = [&](gptq::matrix_view<const float> w) {
                gptq::held_layer<gptq::cpu_backend> codes(cpu, N, K, 2);
                gptq::round_to_nearest_into<S::bits>(gptq::in_backend, cpu, w, 32, codes, grid{});
                gptq::matrix<float> D(N, K);
                codes.dequantize(D.view());
                for (std::size_t i = 0; i < N * K; ++i) D.data()[i] -= scaled.data()[i];
                return gptq::output_error(gptq::in_backend, std::as_const(D).view(), folded);
            };
            const auto clipped =
                gptq::clip_groups<S::bits, grid>(cpu, std::as_const(scaled).view(), folded.upper(), 32);
            const double plain = loss_of(std::as_const(scaled).view()), after = loss_of(clipped.view());
            CHECK(std::abs(plain / expected["rounded_loss"].get<double>() - 1.0) < 1e-4);
            CHECK(std::abs(after / expected["clipped_loss"].get<double>() - 1.0) < 1e-4);
        });
    }
}

TEST_CASE("SmoothQuant's scales are those of its formula", "[fold]") {
    const std::vector<double> x{4.0, 100.0, 0.0}, w{1.0, 0.25, 1.0};
    const auto half = smooth_scales(x, w, 0.5);
    CHECK(std::abs(half[0] - 2.0f) < 1e-6f);
    CHECK(std::abs(half[1] - 20.0f) < 1e-5f);
    CHECK(half[2] == 1.0f);
    CHECK(std::abs(smooth_scales(x, w, 1.0)[1] - 100.0f) < 1e-4f);
    CHECK(std::abs(smooth_scales(x, w, 0.0)[1] - 4.0f) < 1e-6f);
}

TEST_CASE("what is written with scales is the model, in all kinds of norms, biases and fused layers", "[fold]") {
    for (const std::string name : {"llama", "gemma3", "qwen2", "opt", "phi3", "gpt-neox", "mixtral", "stablelm"}) {
        const golden_model golden(name);
        const gptq::io::model_folder source(golden.folder);
        const token_windows windows{golden.input_ids(), 11};
        const auto expected = decoder::load(source).logits(windows.tokens);
        const auto made = [&](const gptq::quantize_settings& settings, bool changes_norms) {
            const gptq_test::temp_dir temporary;
            quantize_model_options options;
            options.config.settings = settings;
            options.config.settings.group_size = gptq::per_channel;
            options.config.format = gptq::io::checkpoint_format::compressed_tensors;  // for layers of any size
            quantize_model(source, temporary.path() / "out", windows, options);
            const gptq::io::model_folder out(temporary.path() / "out");
            std::size_t changed = 0;
            for (const std::string& tensor : source.tensor_names())
                if (mentions(tensor, "norm") && source.tensor(tensor).shape.size() == 1)
                    changed += source.read_vector(tensor) != out.read_vector(tensor);
            INFO(name);
            CHECK((changed != 0) == changes_norms);
            return relative_error(decoder::load(out).logits(windows.tokens), expected);
        };
        INFO(name);
        // Tokens that go to other experts than before change more than the codes do.
        const double nearest = made(gptq::settings::nearest(8), false);
        CHECK(nearest < (name == "mixtral" ? 0.2 : 0.06));
        CHECK(made(gptq::settings::awq(8), true) < 1.5 * nearest);
        gptq::quantize_settings smooth = gptq::settings::nearest(8);
        smooth.smooth = 0.5;
        CHECK(made(smooth, true) < 1.5 * nearest);
    }
}
