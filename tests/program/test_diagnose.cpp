// Faults of checkpoints, each planted in the files of a tiny model: diagnose names it, and nothing else.
#include "support/catch.hpp"

#include <cmath>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include <gptq/half.hpp>
#include <gptq/io/json.hpp>
#include <gptq/io/model_folder.hpp>
#include <gptq/model/diagnose.hpp>
#include <gptq/model/quantize_model.hpp>
#include <gptq/model/report.hpp>

#include "program/run_program.hpp"
#include "program/tiny_model.hpp"
#include "support/message.hpp"
#include "support/temp_dir.hpp"

namespace fs = std::filesystem;
namespace io = gptq::io;
namespace model = gptq::model;
using gptq_test::mentions;
using model::fault;

namespace {

model::token_windows windows_of(std::size_t first, std::size_t count) {
    const std::string text = gptq_test::some_text((first + count) * 64).substr(first * 64);
    return {std::vector<std::int32_t>(text.begin(), text.end()), 64};
}

struct scene {
    gptq_test::temp_dir temporary;
    fs::path source = temporary.path() / "source", out = temporary.path() / "out";
    model::quantize_model_options options;

    explicit scene(const gptq_test::tiny_model& sizes = {.blocks = 3}) {
        gptq_test::write_tiny_model(source, sizes);
        options.config.settings.group_size = 16;
    }

    /// Quantized as the settings are by themselves, which is done once.
    static const scene& healthy() {
        static const scene one;
        static const bool done = (one.quantize(), true);
        static_cast<void>(done);
        return one;
    }

    /// With a copy of the quantized model.
    explicit scene(const scene& other) : source(other.source) { fs::copy(other.out, out); }

    void quantize() const { model::quantize_model(io::model_folder(source), out, windows_of(0, 8), options); }

    model::diagnosis diagnose() const {
        return model::diagnose(io::model_folder(out), io::model_folder(source), windows_of(16, 4));
    }

    /// Changes elements of a tensor in the files.
    template <class T>
    void change(const std::string& tensor, const std::function<void(std::vector<T>&)>& how) const {
        const io::model_folder folder(out);
        const auto& bytes = folder.tensor(tensor).bytes;
        std::string file = gptq_test::read_file(out / "model.safetensors");
        std::vector<T> values(bytes.size() / sizeof(T));
        std::memcpy(values.data(), file.data() + bytes.begin(), bytes.size());
        how(values);
        std::memcpy(file.data() + bytes.begin(), values.data(), bytes.size());
        gptq_test::write_file(out / "model.safetensors", file);
    }

    void change_json(const std::string& name, const std::function<void(nlohmann::ordered_json&)>& how) const {
        auto object = nlohmann::ordered_json::parse(gptq_test::read_file(out / name));
        how(object);
        gptq_test::write_file(out / name, io::json_text(object, name));
    }

    void call_format(const std::string& format) const {
        change_json("quantize_config.json", [&](auto& object) { object["checkpoint_format"] = format; });
        change_json("config.json", [&](auto& object) { object["quantization_config"]["checkpoint_format"] = format; });
    }

    /// Renames a tensor to something of the same length that no model reads.
    void hide(const std::string& tensor) const {
        std::string file = gptq_test::read_file(out / "model.safetensors");
        const std::size_t at = file.find("\"" + tensor + "\"");
        REQUIRE(at != std::string::npos);
        file.replace(at + 1, 1, "_");
        gptq_test::write_file(out / "model.safetensors", file);
    }
};

const std::string layer = "model.layers.2.mlp.down_proj";

/// The only finding.
void check_only(const model::diagnosis& found, fault what, const std::vector<std::string>& where = {layer}) {
    REQUIRE(found.findings.size() == 1);
    CAPTURE(found.findings[0].where, found.findings[0].example);
    CHECK(model::describe(found.findings[0].what).name == model::describe(what).name);
    CHECK(found.findings[0].where == where);
    CHECK_FALSE(model::describe(what).remedy.empty());
}

}  // namespace

TEST_CASE("nothing stands out in a healthy checkpoint, whatever its settings") {
    scene s;
    auto& settings = s.options.config.settings;
    SECTION("as they are") {}
    SECTION("2 bits with all that helps") {
        settings = gptq::settings::best(2);
        settings.group_size = 16;
    }
    SECTION("act-order, asymmetric") {
        settings.order = gptq::order_kind::act;
        settings.sym = false;
        s.options.config.format = io::checkpoint_format::gptq_v2;
    }
    SECTION("rounded to nearest, with the output layer") {
        settings = gptq::settings::nearest(3);
        settings.group_size = 16;
        s.options.config.lm_head = true;
    }
    s.quantize();
    const auto found = s.diagnose();
    for (const auto& f : found.findings) {
        CAPTURE(model::describe(f.what).name, f.where, f.example);
        CHECK(false);
    }
    CHECK(found.layers.size() == (s.options.config.lm_head ? 22 : 21));
    for (const auto& l : found.layers) {
        CHECK(l.error > 0.0);
        CHECK(l.error < 2.0 * l.rtn_error);
    }
    REQUIRE(found.stream_errors.size() == 3);
    for (const double error : found.stream_errors) CHECK((error > 0.0 && error < 1.0));
}

TEST_CASE("zero points that are read by the other format's rule are named, with the right format") {
    scene s;
    s.options.config.settings.sym = GENERATE(false, true);
    const bool second = GENERATE(false, true);
    s.options.config.format = second ? io::checkpoint_format::gptq_v2 : io::checkpoint_format::gptq;
    s.quantize();
    s.call_format(second ? "gptq" : "gptq_v2");
    const auto found = s.diagnose();
    REQUIRE(found.findings.size() == 1);
    CHECK(found.findings[0].where.size() == 21);
    const auto what = found.findings[0].what;
    CHECK(what == (second ? fault::zero_points_too_large : fault::zero_points_too_small));
    CHECK(mentions(model::describe(what).remedy, second ? "to \"gptq_v2\"" : "to \"gptq\""));
}

TEST_CASE("an act-order that is lost is named") {
    scene s;
    s.options.config.settings.order = gptq::order_kind::act;
    s.quantize();
    SECTION("g_idx is that of plain groups") {
        s.change<std::int32_t>(layer + ".g_idx", [](auto& g) {
            for (std::size_t k = 0; k < g.size(); ++k) g[k] = static_cast<std::int32_t>(k / 16);
        });
        check_only(s.diagnose(), fault::act_order_lost);
    }
    SECTION("g_idx is missing") {
        s.hide(layer + ".g_idx");
        const auto found = s.diagnose();
        check_only(found, fault::unreadable);
        CHECK(mentions(found.findings[0].example, "g_idx", "is missing", "activation order"));
    }
}

TEST_CASE("damage to one layer is named, and the layer with it") {
    const scene s(scene::healthy());
    SECTION("a scale") {
        s.change<gptq::half>(layer + ".scales", [](auto& scales) {
            for (std::size_t i = 0; i < 8; ++i) scales[64 + i] = gptq::to_half(16.0f * gptq::to_float(scales[64 + i]));
        });
        const auto found = s.diagnose();
        check_only(found, fault::scales);
        CHECK(mentions(found.findings[0].example, "row 0, group 1"));
    }
    SECTION("scales that are 0") {
        s.change<gptq::half>(layer + ".scales", [](auto& scales) { std::fill_n(scales.begin(), 128, gptq::half{0}); });
        check_only(s.diagnose(), fault::scales);
    }
    SECTION("a scale that is no number") {
        s.change<gptq::half>(layer + ".scales", [](auto& scales) { scales[5].bits = 0x7e00; });
        const auto found = s.diagnose();
        check_only(found, fault::unreadable);
        CHECK(mentions(found.findings[0].example, "scales", "NaN"));
    }
    SECTION("codes") {
        s.change<std::int32_t>(layer + ".qweight", [](auto& words) {
            for (std::size_t i = 0; i < words.size(); i += 2) words[i] ^= 0x5a5a5a5a;
        });
        check_only(s.diagnose(), fault::codes);
    }
    SECTION("a norm") {
        s.change<float>("model.layers.2.input_layernorm.weight", [](auto& w) { w[3] = 20.0f; });
        check_only(s.diagnose(), fault::other_weights, {"model.layers.2.input_layernorm"});
    }
    SECTION("the embedding") {
        s.change<float>("model.embed_tokens.weight", [](auto& w) { std::reverse(w.begin(), w.end()); });
        check_only(s.diagnose(), fault::other_weights, {"model.embed_tokens.weight"});
    }
    SECTION("weights so large that the states overflow") {
        s.change<float>("model.layers.1.post_attention_layernorm.weight",
                        [](auto& w) { std::fill(w.begin(), w.end(), 3e38f); });
        const auto found = s.diagnose();
        REQUIRE(found.findings.size() == 2);
        CHECK(found.findings[0].what == fault::other_weights);
        CHECK(found.findings[1].what == fault::not_finite);
        CHECK(found.findings[1].where == std::vector<std::string>{"model.layers.1.output"});
        CHECK(std::isnan(found.stream_errors[2]));
    }
    SECTION("config.json") {
        s.change_json("config.json", [](auto& object) { object["rope_theta"] = 500000.0; });
        check_only(s.diagnose(), fault::config, {"rotary embeddings"});
    }
}

TEST_CASE("an output layer that went missing is named") {
    const bool tied = GENERATE(false, true);
    const scene s({.blocks = 1, .tied = tied});
    s.quantize();
    if (!tied) s.hide("lm_head.weight");
    s.change_json("config.json", [&](auto& object) { object["tie_word_embeddings"] = !tied; });
    const auto found = s.diagnose();
    check_only(found, fault::head, {"lm_head"});
    CHECK(mentions(found.findings[0].example, "config.json"));
}

TEST_CASE("a layer that is hard by itself is told from damage") {
    scene s({.blocks = 5});
    s.options.config.dynamic =
        io::dynamic_rules(nlohmann::ordered_json::parse(R"({"model.layers.2.mlp.down_proj$": {"bits": 2}})"), "rules");
    s.quantize();
    check_only(s.diagnose(), fault::hard_layer);
}

TEST_CASE("records of a quantization are searched for what stands out") {
    std::vector<model::module_record> records;
    for (std::size_t i = 0; i < 6; ++i)
        records.push_back({.layer = i,
                           .module = "mlp.down_proj",
                           .error = 1.0,
                           .rtn_error = 2.0,
                           .samples = 1,
                           .relative_error = 0.004});
    CHECK(model::outstanding_errors(records).empty());
    records[3].relative_error = 0.03;
    records[5].error = 2.5;
    const auto found = model::outstanding_errors(records);
    REQUIRE(found.size() == 2);
    CHECK(mentions(found[0], "layer 3 mlp.down_proj;", "8 bits"));
    CHECK(mentions(found[1], "layer 5 mlp.down_proj;", "more text"));
}

TEST_CASE("the program names the fault, the place and the remedy") {
    if (gptq_test::skipped()) return;
    const scene s({.blocks = 1});
    s.quantize();
    gptq_test::write_file(s.temporary.path() / "text", gptq_test::some_text(2000));
    const auto run = [&](const std::vector<std::string>& more) {
        return gptq_test::run_program(gptq_test::with_defaults(
            more, {"--against", s.source.string(), "--text", (s.temporary.path() / "text").string()}));
    };
    const auto healthy = run({"diagnose", s.out.string(), "--seqlen", "64"});
    CAPTURE(healthy.err);
    CHECK(healthy.status == 0);
    CHECK(mentions(healthy.out, "nothing stands out in 7 quantized layers"));
    s.change<gptq::half>("model.layers.0.mlp.up_proj.scales",
                         [](auto& all) { std::fill_n(all.begin(), 64, gptq::half{0}); });
    const auto damaged = run({"diagnose", s.out.string(), "--seqlen", "64"});
    CHECK(mentions(damaged.out, "scales: model.layers.0.mlp.up_proj have scales", "remedy: fetch the files again"));
    const auto json = nlohmann::json::parse(run({"diagnose", s.out.string(), "--json"}).out);
    CHECK(json["findings"][0]["fault"] == "scales");
    CHECK(json["layers"].size() == 7);
    CHECK(json["stream_errors"].size() == 1);
}
