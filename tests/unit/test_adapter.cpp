// LoRA adapters against models whose weights the test merges itself, in double.
#include <gptq/model/adapter.hpp>

#include <cmath>
#include <cstddef>
#include <filesystem>
#include <map>
#include <random>
#include <span>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include <gptq/half.hpp>
#include <gptq/io/folder_writer.hpp>
#include <gptq/model/decoder.hpp>
#include <gptq/model/quantize_model.hpp>
#include <gptq/model/weights.hpp>
#include <gptq/xtensor/surface.hpp>

#include "program/tiny_model.hpp"
#include "support/catch.hpp"
#include "support/golden_models.hpp"
#include "support/message.hpp"
#include "support/shared.hpp"
#include "support/temp_dir.hpp"

namespace io = gptq::io;
namespace model = gptq::model;
using gptq_test::mentions;
using gptq_test::message_of;

namespace {

const std::string q_proj = "model.layers.0.self_attn.q_proj", o_proj = "model.layers.1.self_attn.o_proj";
const std::string down_proj = "model.layers.0.mlp.down_proj", head = "lm_head";

/// One changed layer.
struct change {
    std::size_t out, in, rank;
    std::vector<float> a, b;  // [rank, in], [out, rank]
};

using changes = std::map<std::string, change>;

change random_change(std::size_t out, std::size_t in, std::size_t rank, unsigned seed) {
    std::mt19937 random(seed);
    std::normal_distribution<float> normal(0.0f, 0.1f);
    change c{out, in, rank, std::vector<float>(rank * in), std::vector<float>(out * rank)};
    for (auto* numbers : {&c.a, &c.b})
        for (float& x : *numbers) x = gptq::to_float(gptq::to_bfloat16(normal(random)));  // exact in BF16 and F32
    return c;
}

changes some_changes(unsigned seed, std::size_t rank = 4) {
    return {{q_proj, random_change(64, 64, rank, seed)},
            {o_proj, random_change(64, 64, rank, seed + 1)},
            {down_proj, random_change(64, 128, rank, seed + 2)},
            {head, random_change(256, 64, rank, seed + 3)}};
}

const nlohmann::json plain_config = {{"peft_type", "LORA"},     {"r", 4},
                                     {"lora_alpha", 6},         {"bias", "none"},
                                     {"use_rslora", false},     {"modules_to_save", nullptr},
                                     {"fan_in_fan_out", false}, {"target_modules", {"q_proj", "o_proj", "down_proj"}}};

/// The config with other values.
nlohmann::json with(const nlohmann::json& other) {
    nlohmann::json config = plain_config;
    config.update(other);
    return config;
}

class tensor_file {
 public:
    explicit tensor_file(const std::filesystem::path& path) : writer_(path) {}
    void add(const std::string& name, std::size_t rows, std::size_t cols, const std::vector<float>& numbers,
             io::dtype type = io::dtype::f32) {
        const std::vector<std::size_t> shape = {rows, cols};
        if (type == io::dtype::f32) return writer_.add(name, type, shape, std::as_bytes(std::span(numbers)));
        std::vector<gptq::bfloat16> narrow;
        for (const float x : numbers) narrow.push_back(gptq::to_bfloat16(x));
        writer_.add(name, io::dtype::bf16, shape, std::as_bytes(std::span(narrow)));
    }
    void close() { writer_.close(); }

 private:
    io::detail::shard_writer writer_;
};

void write_adapter(const std::filesystem::path& folder, const changes& layers,
                   const nlohmann::json& config = plain_config, io::dtype type = io::dtype::f32) {
    std::filesystem::create_directory(folder);
    gptq_test::write_file(folder / "adapter_config.json", config.dump());
    tensor_file file(folder / "adapter_model.safetensors");
    for (const auto& [name, c] : layers) {
        file.add("base_model.model." + name + ".lora_A.weight", c.rank, c.in, c.a, type);
        file.add("base_model.model." + name + ".lora_B.weight", c.out, c.rank, c.b, type);
    }
    file.close();
}

using scaled_changes = std::vector<std::pair<changes, double>>;

/// The floats of a weight, dequantized where `base` has codes.
std::vector<double> weight_of(const io::model_folder& base, const std::string& layer, const io::tensor_info& tensor) {
    const model::weight_reader reader(base);
    const auto stored = reader.read_linear(layer, tensor.shape[0], tensor.shape[1], false);
    const auto* codes = std::get_if<gptq::quantized_layer>(&stored.weights);
    const auto floats = codes != nullptr ? gptq::dequantize(*codes) : std::get<model::table>(stored.weights).floats();
    return {floats.begin(), floats.end()};
}

void add_change(std::vector<double>& W, const change& c, double scale) {
    for (std::size_t n = 0; n < c.out; ++n)
        for (std::size_t k = 0; k < c.in; ++k)
            for (std::size_t r = 0; r < c.rank; ++r)
                W[n * c.in + k] +=
                    scale * static_cast<double>(c.b[n * c.rank + r]) * static_cast<double>(c.a[r * c.in + k]);
}

/// A float model with the weights of `base` and all changes in them. `source` is the float model.
void write_merged(const std::filesystem::path& source, const std::filesystem::path& base,
                  const std::filesystem::path& out, const scaled_changes& all) {
    const io::model_folder floats(source), weights(base);
    io::folder_writer writer(out);
    for (const std::string& name : floats.tensor_names()) {
        const io::tensor_info& tensor = floats.tensor(name);
        const std::string layer = name.substr(0, name.rfind('.'));
        if (!layer.ends_with("_proj") && layer != head) {
            writer.add_tensor(name, tensor.dtype, tensor.shape, tensor.bytes.read());
            continue;
        }
        std::vector<double> W = weight_of(weights, layer, tensor);
        for (const auto& [layers, scale] : all)
            if (const auto found = layers.find(layer); found != layers.end()) add_change(W, found->second, scale);
        const std::vector<float> numbers(W.begin(), W.end());
        writer.add_tensor(name, tensor.dtype, tensor.shape, std::as_bytes(std::span(numbers)));
    }
    writer.copy_file(source / "config.json");
    writer.finish();
}

std::vector<std::int32_t> some_tokens(std::size_t count) {
    std::vector<std::int32_t> tokens(count);
    for (std::size_t i = 0; i < count; ++i) tokens[i] = static_cast<std::int32_t>(i * 37 % 256);
    return tokens;
}

double difference(const model::decoder& found, const model::decoder& expected, std::size_t tokens) {
    const auto a = found.logits(some_tokens(tokens)), b = expected.logits(some_tokens(tokens));
    return gptq_test::relative_difference({a.data(), a.size()}, {b.begin(), b.end()});
}

struct folders {
    gptq_test::temp_dir dir;
    std::filesystem::path base = dir.path() / "base";
    std::filesystem::path merged = dir.path() / "merged";
    std::filesystem::path adapter = dir.path() / "adapter";

    explicit folders(const gptq_test::tiny_model& sizes = {}) { gptq_test::write_tiny_model(base, sizes); }

    model::decoder with_adapters(const std::vector<model::adapter>& adapters,
                                 model::head_form form = model::head_form::stored) const {
        return model::decoder::load(io::model_folder(base), {}, form, adapters);
    }
    model::decoder plain(const std::filesystem::path& folder) const {
        return model::decoder::load(io::model_folder(folder));
    }

    /// The adapter gives the logits of the weights with the changes times `scale`, for one token and for many.
    void check_scale(const changes& layers, const nlohmann::json& config, double scale, double weight = 1.0,
                     io::dtype type = io::dtype::f32) {
        std::filesystem::remove_all(merged);
        std::filesystem::remove_all(adapter);
        write_adapter(adapter, layers, config, type);
        write_merged(base, base, merged, {{layers, scale}});
        const auto found = with_adapters({model::adapter::load(adapter, weight)}), expected = plain(merged);
        CHECK(difference(found, expected, 24) < 1e-5);
        CHECK(difference(found, expected, 1) < 1e-5);
        CHECK(difference(found, plain(base), 24) > 1e-3);
    }

    std::string refusal(const changes& layers, const nlohmann::json& config = plain_config) {
        std::filesystem::remove_all(adapter);
        write_adapter(adapter, layers, config);
        return message_of([&] { with_adapters({model::adapter::load(adapter)}); });
    }
};

}  // namespace

TEST_CASE("an adapter gives the logits of merged weights", "[adapter]") {
    folders f;
    f.check_scale(some_changes(1), plain_config, 1.5);
    f.check_scale(some_changes(1), plain_config, 1.5, 1.0, io::dtype::bf16);
    f.check_scale(some_changes(1), plain_config, -0.75, -0.5);
    f.check_scale(some_changes(2), with({{"use_rslora", true}}), 3.0);
}

TEST_CASE("logits equal those of PEFT", "[adapter]") {
    for (const char* name : {"plain", "rank-stabilized", "patterns", "head"}) {
        CAPTURE(name);
        const auto folder = gptq_test::source_dir() / "tests" / "golden" / "adapters" / name;
        const auto expected = gptq_test::read_json(folder / "expected.json");
        const gptq_test::golden_model base(expected["base"].get<std::string>());
        const std::vector<model::adapter> adapters = {model::adapter::load(folder)};
        const auto changed =
            model::decoder::load(io::model_folder(base.folder), {}, model::head_form::stored, adapters);
        const auto logits = changed.logits(expected["input_ids"].get<std::vector<std::int32_t>>());
        for (std::size_t t = 0; t < expected["logits"].size(); ++t)
            CHECK(gptq_test::relative_difference(gptq::view_of(logits).row(t),
                                                 expected["logits"][t].get<std::vector<double>>()) < 2e-5);
    }
}

TEST_CASE("patterns give layers ranks and alphas of their own", "[adapter]") {
    folders f;
    changes layers = {{q_proj, random_change(64, 64, 2, 1)}};
    f.check_scale(layers, with({{"rank_pattern", {{"q_proj", 2}}}, {"alpha_pattern", {{"self_attn.q_proj", 5}}}}), 2.5);
    f.check_scale(layers, with({{"rank_pattern", {{q_proj, 2}}}, {"alpha_pattern", {{"proj", 5}}}}), 3.0);
    CHECK(mentions(f.refusal(layers, with({{"rank_pattern", {{".*q_proj", 2}}}})), "rank_pattern", ".*q_proj"));
}

TEST_CASE("several adapters add up", "[adapter]") {
    folders f;
    const changes first = some_changes(1), second = {{q_proj, random_change(64, 64, 4, 9)}};
    write_adapter(f.adapter, first);
    write_adapter(f.dir.path() / "second", second);
    write_merged(f.base, f.base, f.merged, {{first, 1.5}, {second, 0.75}});
    const auto both =
        f.with_adapters({model::adapter::load(f.adapter), model::adapter::load(f.dir.path() / "second", 0.5)});
    CHECK(difference(both, f.plain(f.merged), 24) < 1e-5);
}

TEST_CASE("an adapter runs on codes", "[adapter]") {
    folders f;
    const changes layers = some_changes(3);
    model::quantize_model_options options;
    options.config.settings = gptq::settings::nearest();
    options.config.settings.group_size = 32;
    const auto quantized = f.dir.path() / "quantized";
    model::quantize_model(io::model_folder(f.base), quantized, {some_tokens(64), 64}, options);
    write_adapter(f.adapter, layers);
    write_merged(f.base, quantized, f.merged, {{layers, 1.5}});
    const std::vector adapters = {model::adapter::load(f.adapter)};
    const auto found = model::decoder::load(io::model_folder(quantized), {}, model::head_form::stored, adapters);
    CHECK(difference(found, f.plain(f.merged), 24) < 1e-5);
    CHECK(difference(found, f.plain(f.merged), 1) < 1e-5);
}

TEST_CASE("a head of 8 bits keeps the adapter's term", "[adapter]") {
    folders f;
    write_adapter(f.adapter, {{head, random_change(256, 64, 4, 5)}});
    const std::vector adapters = {model::adapter::load(f.adapter)};
    CHECK(difference(f.with_adapters(adapters, model::head_form::eight_bits), f.with_adapters(adapters), 8) < 0.02);
}

TEST_CASE("settings that change the arithmetic are refused by name", "[adapter]") {
    folders f;
    const std::vector<std::pair<std::string, nlohmann::json>> refused = {
        {"peft_type", "IA3"},           {"use_dora", true},    {"bias", "all"},  {"modules_to_save", {"lm_head"}},
        {"fan_in_fan_out", true},       {"lora_bias", true},   {"r", 0},         {"lora_alpha", nullptr},
        {"init_lora_weights", "pissa"}, {"use_rslora", "yes"}, {"lora_alpha", 0}};
    for (const auto& [key, value] : refused) {
        INFO(key << " " << value);
        CHECK(mentions(f.refusal(some_changes(1), with({{key, value}})), key, "adapter_config.json"));
    }
    CHECK(f.refusal(some_changes(1), with({{"layers_to_transform", {0, 1}}})) == "nothing was thrown");
}

TEST_CASE("layers and tensors that do not fit are refused by name", "[adapter]") {
    folders f;
    const std::string missing = "model.layers.7.self_attn.q_proj";
    CHECK(mentions(f.refusal({{missing, random_change(64, 64, 4, 1)}}), missing));
    CHECK(mentions(f.refusal({{q_proj, random_change(32, 64, 4, 1)}}), q_proj, "[32, 64]"));
    CHECK(mentions(f.refusal({{q_proj, random_change(64, 64, 8, 1)}}), q_proj, "rank of 4"));
    change wrong = random_change(64, 64, 4, 1);
    wrong.a[5] = std::nanf("");
    CHECK(mentions(f.refusal({{q_proj, wrong}}), q_proj, "NaN"));
    CHECK(mentions(f.refusal({}), "has no tensors"));

    folders tied(gptq_test::tiny_model{.tied = true});
    CHECK(mentions(tied.refusal({{head, random_change(256, 64, 4, 1)}}), head));
}

TEST_CASE("tensors without a partner and of other kinds are refused by name", "[adapter]") {
    folders f;
    const change c = random_change(64, 64, 4, 1);
    const auto message_for = [&](const std::string& name, std::size_t rows, std::size_t cols,
                                 const std::vector<float>& numbers) {
        std::filesystem::remove_all(f.adapter);
        write_adapter(f.adapter, {});
        std::filesystem::remove(f.adapter / "adapter_model.safetensors");
        tensor_file file(f.adapter / "adapter_model.safetensors");
        file.add(name, rows, cols, numbers);
        file.close();
        return message_of([&] { model::adapter::load(f.adapter); });
    };
    const std::string start = "base_model.model." + q_proj;
    CHECK(mentions(message_for(start + ".lora_A.weight", 4, 64, c.a), "partner", start + ".lora_B.weight"));
    CHECK(mentions(message_for(start + ".lora_B.weight", 64, 4, c.b), "partner", start + ".lora_A.weight"));
    CHECK(mentions(message_for("base_model.model.embed.lora_embedding_A", 4, 64, c.a), "lora_embedding_A"));
    CHECK(mentions(message_for(".lora_A.weight", 4, 64, c.a), ".lora_A.weight"));
}
