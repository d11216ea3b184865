// Quantization configs: every name and place that other programs use, what is refused, what is written, and the rules.
#include <algorithm>
#include <chrono>
#include <filesystem>
#include <string>
#include <vector>

#include <gptq/error.hpp>
#include <gptq/io/dynamic_rules.hpp>
#include <gptq/io/json.hpp>
#include <gptq/io/quantization_config.hpp>
#include <gptq/model/quantize_plan.hpp>
#include <gptq/model/reader_rules.hpp>
#include <gptq/version.hpp>

#include "support/catch.hpp"
#include "support/files.hpp"
#include "support/shared.hpp"
#include "support/temp_dir.hpp"

namespace {

using namespace gptq_test;
namespace io = gptq::io;
using io::quantization_config;

quantization_config from(const std::string& text) {
    return quantization_config::from_json(io::parse_json<nlohmann::ordered_json>(text, "test"), "test");
}

template <class E>
std::string refusal(const std::string& text) {
    return message_of<E>([&] { from(text); });
}

io::dynamic_rules rules_from(const std::string& text) {
    return io::dynamic_rules(io::parse_json<nlohmann::ordered_json>(text, "test"), "test");
}

}  // namespace

TEST_CASE("a config of GPTQModel", "[config]") {
    const auto c = from(R"({"bits": 3, "group_size": 32, "desc_act": false, "lm_head": true, "method": "gptq",
        "quant_method": "gptq", "format": "gptq_v2", "checkpoint_format": "gptq_v2", "pack_dtype": "int32",
        "meta": {"quantizer": ["gptqmodel:7.7.0"], "damp_percent": 0.05, "static_groups": false,
                 "true_sequential": false, "act_group_aware": true, "mse": 0.0, "gptaq": null}, "sym": false})");
    CHECK(c.format == io::checkpoint_format::gptq_v2);
    CHECK(c.settings.bits == 3);
    CHECK(c.settings.group_size == 32);
    CHECK_FALSE(c.settings.sym);
    CHECK(c.lm_head);
    CHECK(c.settings.damp_percent == 0.05);
    CHECK_FALSE(c.true_sequential);
    CHECK(c.settings.order == gptq::order_kind::group_aware);
    CHECK(c.quantizer == std::vector<std::string>{"gptqmodel:7.7.0"});
}

TEST_CASE("a config of AutoGPTQ", "[config]") {
    const auto c = from(R"({"bits": 4, "group_size": -1, "damp_percent": 0.1, "desc_act": true, "static_groups": true,
        "sym": true, "true_sequential": true, "model_name_or_path": null, "model_file_base_name": "gptq_model-4bit--1g"})");
    CHECK(c.format == io::checkpoint_format::gptq);
    CHECK(c.settings.group_size == -1);
    CHECK(c.settings.damp_percent == 0.1);
    CHECK(c.settings.sym);
    CHECK(c.settings.order == gptq::order_kind::act_static);
}

TEST_CASE("synonyms and defaults", "[config]") {
    for (const char* bits : {"bits", "w_bit", "wbits"})
        for (const char* group : {"group_size", "q_group_size"}) {
            const auto c = from(std::string("{\"") + bits + "\": 8, \"" + group + "\": 64}");
            CHECK(c.settings.bits == 8);
            CHECK(c.settings.group_size == 64);
            CHECK(c.format == io::checkpoint_format::gptq);
            CHECK(c.settings.sym);
            CHECK(c.settings.order == gptq::order_kind::natural);
            CHECK_FALSE(c.lm_head);
        }
    CHECK(from(R"({"bits": 4, "group_size": 64, "version": "GPTQ_V2"})").format == io::checkpoint_format::gptq_v2);
    CHECK(from(R"({"bits": 4, "group_size": 64, "checkpoint_format": null})").format == io::checkpoint_format::gptq);
    CHECK_FALSE(from(R"({"bits": 4, "group_size": 64, "zero_point": true})").settings.sym);
    CHECK(from(R"({"bits": 4, "group_size": 64, "zero_point": false})").settings.sym);
    CHECK(from(R"({"bits": 4, "group_size": 64, "sym": null})").settings.sym);
}

TEST_CASE("contradictions, gaps and wrong types are format errors", "[config]") {
    using gptq::format_error;
    CHECK(contains(refusal<format_error>(R"({"bits": 4, "wbits": 3, "group_size": 64})"), "contradict"));
    CHECK(contains(refusal<format_error>(R"({"bits": 4, "group_size": 64, "sym": true, "zero_point": true})"),
                   "contradict"));
    CHECK(contains(
        refusal<format_error>(R"({"bits": 4, "group_size": 64, "format": "gptq", "checkpoint_format": "gptq_v2"})"),
        "contradict"));
    CHECK(contains(refusal<format_error>(R"({"group_size": 64})"), "\"bits\" is missing"));
    CHECK(contains(refusal<format_error>(R"({"bits": 4})"), "\"group_size\" is missing"));
    CHECK(contains(refusal<format_error>(R"({"bits": "4", "group_size": 64})"), "\"bits\" must be an integer"));
    CHECK(contains(refusal<format_error>(R"({"bits": 4.5, "group_size": 64})"), "must be an integer"));
    CHECK(contains(refusal<format_error>(R"({"bits": 4294967300, "group_size": 64})"), "32 bits"));
    CHECK(contains(refusal<format_error>(R"({"bits": -4294967292, "group_size": 64})"), "32 bits"));
    CHECK(contains(refusal<format_error>(R"({"bits": 4, "group_size": 0})"), "group_size 0"));
    CHECK(contains(refusal<format_error>(R"({"bits": 4, "group_size": -2})"), "group_size -2"));
    CHECK(contains(refusal<format_error>(R"({"bits": 4, "group_size": 64, "desc_act": "no"})"), "true or false"));
    CHECK(contains(refusal<format_error>(R"({"bits": 4, "group_size": 64, "dynamic": []})"), "object"));
    CHECK(contains(refusal<format_error>("[]"), "not a JSON object"));
}

TEST_CASE("what the library does not read is named", "[config]") {
    using gptq::unsupported_error;
    for (const int bits : {0, 1, 5, 6, 7, 9, 16, -4})
        CHECK(contains(refusal<unsupported_error>(R"({"group_size": 64, "bits": )" + std::to_string(bits) + "}"),
                       std::to_string(bits) + " bits"));
    for (const char* format : {"marlin", "gptq_p", "gemm", "bitblas"})
        CHECK(contains(refusal<unsupported_error>(
                           std::string(R"({"bits": 4, "group_size": 64, "checkpoint_format": ")") + format + "\"}"),
                       format));
    for (const char* method : {"aqlm", "marlin", "bitsandbytes"})
        CHECK(contains(refusal<unsupported_error>(std::string(R"({"bits": 4, "group_size": 64, "quant_method": ")") +
                                                  method + "\"}"),
                       method));
    CHECK(contains(refusal<unsupported_error>(R"({"bits": 4, "group_size": 64, "is_marlin_format": true})"), "Marlin"));
    CHECK(contains(refusal<unsupported_error>(R"({"bits": 4, "group_size": 64, "pack_dtype": "int16"})"), "int16"));
    CHECK(contains(refusal<unsupported_error>(R"({"bits": 4, "group_size": 64, "dynamic": {"a": {"bits": 5}}})"),
                   "5 bits"));
}

TEST_CASE("where the config is looked for, and in which order", "[config]") {
    const temp_dir dir;
    const auto with_bits = [](int bits) { return R"({"group_size": 32, "bits": )" + std::to_string(bits) + "}"; };
    write_file(dir.path() / "config.json", "{}");
    CHECK_FALSE(quantization_config::parse(dir.path()));
    write_file(dir.path() / "config.json", R"({"quantization_config": null})");
    CHECK_FALSE(quantization_config::parse(dir.path()));
    const auto refused = [&] {
        return message_of<gptq::format_error>([&] { quantization_config::parse(dir.path()); });
    };
    write_file(dir.path() / "config.json", R"({"quantization_config": )" + with_bits(2) + "}");
    CHECK(quantization_config::parse(dir.path())->settings.bits == 2);
    write_file(dir.path() / "quant_config.json", with_bits(3));
    CHECK(contains(refused(), "bits is 3, but"));
    CHECK(contains(refused(), "says 2"));
    // The first one decides what the other does not say.
    write_file(dir.path() / "quant_config.json", R"({"group_size": 32, "w_bit": 2, "sym": false})");
    CHECK_FALSE(quantization_config::parse(dir.path())->settings.sym);
    write_file(dir.path() / "quantize_config.json", R"({"group_size": 32, "bits": 2, "lm_head": true})");
    CHECK(quantization_config::parse(dir.path())->lm_head);
    CHECK(quantization_config::parse(dir.path())->settings.sym);
    std::filesystem::remove(dir.path() / "quantize_config.json");
    std::filesystem::remove(dir.path() / "quant_config.json");
    write_file(dir.path() / "config.json", R"({"compression_config": )" + with_bits(8) + "}");
    CHECK(quantization_config::parse(dir.path())->settings.bits == 8);
    write_file(dir.path() / "quantize_config.json", "{\"bits\": 8");
    const auto message = message_of<gptq::format_error>([&] { quantization_config::parse(dir.path()); });
    CHECK(contains(message, (dir.path() / "quantize_config.json").string()));
}

TEST_CASE("a config of AutoRound for the tensors of gptq", "[config]") {
    const auto c = from(R"({"quant_method": "auto-round", "packing_format": "auto_round:auto_gptq", "bits": 4,
        "group_size": 128, "sym": true, "data_type": "int", "block_name_to_quantize": "model.layers",
        "autoround_version": "0.9", "extra_config": {"model.layers.0.mlp.down_proj": {"bits": 8},
                                                      "lm_head": {"bits": 16, "data_type": "float"}}})");
    CHECK(c.settings.bits == 4);
    CHECK(c.settings_of("model.layers.0.mlp.down_proj")->bits == 8);
    CHECK(c.settings_of("model.layers.0.mlp.down_proj")->group_size == 128);
    CHECK(c.settings_of("model.layers.1.mlp.down_proj")->bits == 4);
    CHECK_FALSE(c.settings_of("lm_head"));
}

TEST_CASE("a config of Optimum", "[config]") {
    const auto c =
        from(R"({"batch_size": 1, "bits": 4, "block_name_to_quantize": "model.layers", "checkpoint_format": "gptq",
        "damp_percent": 0.1, "dataset": "c4", "desc_act": false, "group_size": 128, "modules_in_block_to_quantize": null,
        "pad_token_id": null, "quant_method": "gptq", "sym": true, "tokenizer": null, "true_sequential": true,
        "use_cuda_fp16": false, "backend": "auto", "meta": {"quantizer": ["optimum:1.23.3"]}})");
    CHECK(c.settings.bits == 4);
    CHECK(c.settings.group_size == 128);
    CHECK(c.settings.damp_percent == 0.1);
}

TEST_CASE("settings in rules that nobody knows: refused in a user's file, kept in a checkpoint", "[config]") {
    const auto message = message_of<gptq::format_error>([] { rules_from(R"({"a": {"bit": 8}})"); });
    CHECK(contains(message, "\"bit\" is not known"));
    CHECK(contains(message, "bits, group_size, sym"));
    CHECK_NOTHROW(from(R"({"bits": 4, "group_size": 64, "dynamic": {"a": {"newer": 8}}})"));
}

TEST_CASE("hostile JSON is refused", "[config]") {
    const auto complaint = [](const std::string& text) {
        return message_of<gptq::format_error>([&] { io::parse_json(text, "where"); });
    };
    CHECK(contains(complaint(R"({"a": 1, "a": 2})"), "where: key \"a\" appears twice"));
    CHECK(contains(complaint(R"({"b": [{"a": 1, "a": 2}]})"), "appears twice"));
    CHECK(complaint(R"([{"a": 1}, {"a": 2, "b": {"a": 3}}])").empty());
    CHECK(contains(complaint(std::string(10'000'000, '[')), "nested deeper"));
    CHECK(contains(complaint("{\"a\": \"\xff\"}"), "not valid JSON"));
    CHECK(contains(complaint("{\"a\": 1} {}"), "not valid JSON"));
    CHECK(contains(complaint(""), "not valid JSON"));
}

TEST_CASE("rules: first match wins, rules that skip are looked at first", "[config]") {
    const auto rules = rules_from(R"({
        "+:model\\.layers\\.0\\..*": {"bits": 8, "group_size": 32, "desc_act": true, "sym": false, "damp_percent": 1},
        "model.layers.[01].mlp": {"bits": 3, "mse": 2.4},
        "-:.*down_proj": {},
        "-:lm_head$": null})");
    const auto first = rules.match("model.layers.0.mlp.up_proj");
    CHECK_FALSE(first.skip);
    CHECK(first.bits == 8);
    CHECK(first.group_size == 32);
    CHECK(first.desc_act == true);
    CHECK(first.sym == false);
    CHECK(first.damp_percent == 1.0);
    CHECK_FALSE(first.static_groups);
    CHECK(rules.match("model.layers.1.mlp.up_proj").bits == 3);
    CHECK_FALSE(rules.match("model.layers.1.mlp.up_proj").group_size);
    CHECK(rules.match("model.layers.0.mlp.down_proj").skip);  // though an earlier rule matches too
    CHECK_FALSE(rules.match("model.layers.0.mlp.down_proj").bits);
    CHECK(rules.match("lm_head").skip);
    CHECK_FALSE(rules.match("lm_head2").skip);
    CHECK_FALSE(rules.match("x.lm_head").skip);  // from the start of the name
    const auto none = rules.match("model.layers.2.mlp.up_proj");
    CHECK_FALSE(none.skip);
    CHECK_FALSE(none.bits);
    CHECK(io::dynamic_rules().match("x").skip == false);
}

TEST_CASE("rules use Perl's regular expressions", "[config]") {
    const auto rules =
        rules_from(R"x({"-:model\\.layers\\.(?!1\\.)\\d+\\.(?:self_attn|mlp)\\.[a-z_]+(?<=q_proj)": {}})x");
    CHECK(rules.match("model.layers.0.self_attn.q_proj").skip);
    CHECK_FALSE(rules.match("model.layers.1.self_attn.q_proj").skip);
    CHECK(rules.match("model.layers.10.self_attn.q_proj").skip);
    CHECK_FALSE(rules.match("model.layers.0.self_attn.k_proj").skip);
}

TEST_CASE("rules are written for readers that take other names, or none", "[config]") {
    // Two blocks: q and k read one input, down another.
    const auto stages_of = [](const io::quantization_config& wanted) {
        gptq::model::quantization_plan plan;
        for (std::size_t layer = 0; layer < 2; ++layer)
            for (const std::vector<std::string>& names :
                 {std::vector<std::string>{"self_attn.q_proj", "self_attn.k_proj"}, {"mlp.down_proj"}}) {
                gptq::model::stage_plan stage{layer, {}, {}};
                for (const std::string& name : names)
                    stage.modules.push_back({"model.layers." + std::to_string(layer) + "." + name, name, 8, 8});
                stage.settings = wanted.settings_of(stage.modules.front().name);
                plan.stages.push_back(stage);
            }
        return plan;
    };
    const auto written = [&](const std::string& rules, io::checkpoint_format format = io::checkpoint_format::gptq) {
        io::quantization_config wanted;
        wanted.format = format;
        wanted.dynamic = rules_from(rules);
        return gptq::model::for_readers(wanted, stages_of(wanted), "model.layers.");
    };
    const std::string rule =
        R"x({"-:.*\\.1\\..*\\.[qkv]_proj": {}, "+:.*\\.[qkv]_proj": {"bits": 8}, "+:.*": {"bits": 3}})x";
    const auto config = written(rule);
    CHECK(config.dynamic.match("model.layers.1.self_attn.qkv_proj").skip);
    CHECK(config.dynamic.match("model.layers.0.self_attn.qkv_proj").bits == 8);  // and not 3, of the last rule
    CHECK(config.dynamic.match("model.layers.0.self_attn.q_proj").bits == 8);
    CHECK(config.dynamic.rules().size() == 5);
    // What is quantized everywhere is named by its end.
    const std::vector<std::string> names = {"mlp.down_proj", "model.layers.0.self_attn.k_proj",
                                            "model.layers.0.self_attn.q_proj"};
    auto sorted = config.quantized_modules;
    std::sort(sorted.begin(), sorted.end());
    CHECK(sorted == names);
    const auto listed = config.to_json()["modules_in_block_to_quantize"];
    REQUIRE(listed.size() == 1);
    CHECK(listed[0].size() == 3);
    // Rules that match the fused name, or leave nothing alone, stay as they are.
    const auto plain = written(R"({"+:.*attn": {"bits": 8}})");
    CHECK(plain.dynamic.rules().size() == 1);
    CHECK_FALSE(plain.to_json().contains("modules_in_block_to_quantize"));
    CHECK(written(rule, io::checkpoint_format::compressed_tensors).dynamic.rules().size() == 3);
}

TEST_CASE("bad rules are refused, naming the rule", "[config]") {
    using gptq::format_error;
    const auto complaint = [](const std::string& text) { return message_of<format_error>([&] { rules_from(text); }); };
    CHECK(contains(complaint(R"({"-:a(b": {}})"), "\"a(b\" does not compile"));
    CHECK(contains(complaint(R"({"a": 3})"), "dynamic rule \"a\""));
    CHECK(contains(complaint(R"({"a": {"bits": "4"}})"), "dynamic rule \"a\""));
    CHECK(contains(complaint(R"({"a": {"group_size": 0}})"), "group_size 0"));
    CHECK(contains(complaint(R"({"-:)" + std::string(100'000, 'a') + R"(": {}})"), "does not compile"));
    CHECK(contains(complaint(R"({"-:)" + std::string(1000, '(') + std::string(1000, ')') + R"(": {}})"),
                   "does not compile"));
    CHECK(contains(message_of<gptq::unsupported_error>([] { rules_from(R"({"a": {"bits": 9}})"); }), "9 bits"));
}

TEST_CASE("catastrophic rules end in an error, soon", "[config]") {
    const auto begin = std::chrono::steady_clock::now();
    for (const char* expression : {"(a+)+$", "(a|aa)+$"}) {
        INFO(expression);
        const auto rules = rules_from(std::string(R"({"-:)") + expression + R"(": {}})");
        const auto message = message_of<gptq::format_error>([&] { rules.match(std::string(300, 'a') + "b"); });
        CHECK(contains(message, std::string("\"") + expression + "\" cannot be matched"));
        CHECK(contains(message, "limit"));
    }
    CHECK(std::chrono::steady_clock::now() - begin < std::chrono::seconds(20));
}

TEST_CASE("settings of a module", "[config]") {
    const auto c = from(R"({"bits": 4, "group_size": 64, "sym": true, "desc_act": true,
                            "dynamic": {"a\\.b": {"bits": 8, "sym": false}, "-:a": {}, "-:a\\.b\\.c": {}, "d": {}}})");
    CHECK_FALSE(c.settings_of("a"));
    CHECK_FALSE(c.settings_of("a.b"));
    CHECK(c.settings_of("d")->bits == 4);
    CHECK(c.settings_of("e")->order == gptq::order_kind::act);
    const auto d = from(R"({"bits": 4, "group_size": 64, "dynamic": {"a\\.b": {"bits": 8, "group_size": -1}}})");
    CHECK(d.settings_of("a.b")->bits == 8);
    CHECK(d.settings_of("a.b")->group_size == -1);
    CHECK(d.settings_of("a.c")->bits == 4);
}

TEST_CASE("what is written for gptq has the fields that readers need", "[config]") {
    quantization_config c;
    c.settings.bits = 3;
    c.settings.group_size = -1;
    c.settings.sym = false;
    c.format = io::checkpoint_format::gptq_v2;
    c.settings.damp_percent = 0.01;
    c.settings.order = gptq::order_kind::act;
    c.dynamic = rules_from(R"({"z.*": {"bits": 8}, "a": {"bits": 4, "mse": 2.4}, "-:b": {}})");
    const auto object = c.to_json();
    const std::string expected = R"({"bits":3,"group_size":-1,"desc_act":true,"sym":false,"lm_head":false,)"
                                 R"("quant_method":"gptq","checkpoint_format":"gptq_v2","pack_dtype":"int32",)"
                                 R"("damp_percent":0.01,"static_groups":false,"act_group_aware":false,)"
                                 R"("true_sequential":true,"dynamic":{"-:b":{},"+:z.*":{"bits":8},)"
                                 R"("+:a":{"bits":4,"mse":2.4}},"meta":{"quantizer":["gptq:)" +
                                 std::string(gptq::version_string) + R"("]}})";
    CHECK(object.dump() == expected);
    const auto again = quantization_config::from_json(object, "test");
    CHECK(again.to_json().dump() == expected);
}

TEST_CASE("every order survives writing and reading", "[config]") {
    for (const auto format : {io::checkpoint_format::gptq, io::checkpoint_format::compressed_tensors})
        for (const auto order : {gptq::order_kind::natural, gptq::order_kind::act, gptq::order_kind::act_static}) {
            quantization_config c;
            c.format = format;
            c.settings.order = order;
            CHECK(quantization_config::from_json(c.to_json(), "test").settings.order == order);
        }
    quantization_config c;
    c.settings.order = gptq::order_kind::group_aware;
    CHECK(quantization_config::from_json(c.to_json(), "test").settings.order == gptq::order_kind::group_aware);
}

TEST_CASE("a tuning survives writing and reading, whoever quantized", "[config]") {
    const io::tuning_record tuning{300, 270, 0.002, true, 128, 256};
    for (const auto format : {io::checkpoint_format::gptq, io::checkpoint_format::compressed_tensors})
        for (const bool own : {false, true}) {
            quantization_config c;
            c.format = format;
            c.settings = own ? gptq::settings::best(4) : gptq::settings::paper();
            if (own) c.calibration = io::calibration_record{32, 512, "spread", true};
            c.tuning = tuning;
            const auto read = quantization_config::from_json(c.to_json(), "test");
            CHECK(read.tuning == tuning);
            CHECK(read.calibration == c.calibration);
            c.tuning->rate = 0.0;
            CHECK(quantization_config::from_json(c.to_json(), "test").tuning->rate == 0.0);
        }
    const std::string start = R"({"bits": 4, "group_size": 32, "meta": {"made_with": )";
    CHECK_FALSE(from(R"({"bits": 4, "group_size": 32})").tuning);
    CHECK(contains(refusal<gptq::format_error>(start + R"({"tuning": 3}}})"), "tuning: must be an object"));
    CHECK(contains(refusal<gptq::format_error>(start + R"({"tuning": {"steps": "x"}}}})"),
                   "\"steps\" must be an integer"));
    CHECK(contains(refusal<gptq::format_error>(start + R"({"tuning": {}, "settings": {}}}})"), "\"calibration\""));
}

TEST_CASE("a config of compressed-tensors", "[config]") {
    const auto c = from(R"({"quant_method": "compressed-tensors", "format": "pack-quantized",
        "quantization_status": "compressed", "kv_cache_scheme": null, "global_compression_ratio": 1.8,
        "config_groups": {
          "group_0": {"targets": ["Linear"], "input_activations": null, "output_activations": null,
            "weights": {"num_bits": 4, "type": "int", "symmetric": false, "strategy": "group", "group_size": 128,
                        "actorder": "group", "block_structure": null, "dynamic": false, "observer": "minmax"}},
          "group_1": {"targets": ["re:.*mlp\\.down_proj", "model.layers.0.self_attn.o_proj"],
            "weights": {"num_bits": 8, "type": "int", "symmetric": true, "strategy": "channel", "group_size": null}}},
        "ignore": ["lm_head", "re:.*\\.3\\..*", "model.a+b"]})");
    CHECK(c.format == io::checkpoint_format::compressed_tensors);
    CHECK(c.settings.bits == 4);
    CHECK(c.settings.group_size == 128);
    CHECK_FALSE(c.settings.sym);
    CHECK(c.settings.order == gptq::order_kind::act);
    CHECK_FALSE(c.lm_head);
    CHECK(c.settings_of("model.layers.0.mlp.down_proj")->bits == 8);
    CHECK(c.settings_of("model.layers.0.mlp.down_proj")->group_size == -1);
    CHECK(c.settings_of("model.layers.0.mlp.down_proj")->sym);
    CHECK(c.settings_of("model.layers.0.mlp.down_proj")->order == gptq::order_kind::natural);
    CHECK(c.settings_of("model.layers.0.self_attn.o_proj")->bits == 8);
    CHECK(c.settings_of("model.layers.0.self_attn.o_proj2")->bits == 4);  // names are exact
    CHECK_FALSE(c.settings_of("model.layers.3.self_attn.o_proj"));
    CHECK_FALSE(c.settings_of("lm_head"));
    CHECK_FALSE(c.settings_of("model.a+b"));
    CHECK(c.settings_of("model.aab"));
}

TEST_CASE("compressed-tensors whose groups have patterns only leaves the other modules alone", "[config]") {
    const auto c = from(R"({"quant_method": "compressed-tensors", "config_groups": {
          "group_0": {"targets": ["re:.*self_attn.*_proj$"],
            "weights": {"num_bits": 4, "type": "int", "strategy": "group", "group_size": 32}},
          "group_1": {"targets": ["re:.*mlp.*"],
            "weights": {"num_bits": 8, "type": "int", "strategy": "channel"}}},
        "ignore": ["model.layers.1.mlp.up_proj"]})");
    CHECK(c.settings_of("model.layers.0.self_attn.q_proj")->bits == 4);
    CHECK(c.settings_of("model.layers.0.self_attn.q_proj")->group_size == 32);
    CHECK(c.settings_of("model.layers.0.mlp.up_proj")->bits == 8);
    CHECK(c.settings_of("model.layers.0.mlp.up_proj")->group_size == -1);
    CHECK_FALSE(c.settings_of("model.layers.1.mlp.up_proj"));
    CHECK_FALSE(c.settings_of("model.layers.0.router"));
    CHECK_FALSE(c.settings_of("lm_head"));
}

TEST_CASE("rotations of inputs at run time are refused by name", "[config]") {
    using gptq::unsupported_error;
    const auto gptq_with = [](const std::string& more) {
        return R"({"quant_method": "gptq", "bits": 4, "group_size": 32)" + more + "}";
    };
    CHECK(contains(refusal<unsupported_error>(gptq_with(R"(, "rotation": "hadamard")")), "\"rotation\""));
    CHECK(contains(refusal<unsupported_error>(gptq_with(R"(, "meta": {"rotation": "random"})")), "\"rotation\""));
    CHECK(from(gptq_with(R"(, "rotation": null, "meta": {"rotation": ""})")).settings.bits == 4);
    const auto compressed_with = [](const char* transforms) {
        return R"({"quant_method": "compressed-tensors", "config_groups": {"group_0": {"targets": ["Linear"],
                  "weights": {"num_bits": 4, "strategy": "channel"}}}, "transform_config": )" +
               std::string(transforms) + "}";
    };
    CHECK(contains(refusal<unsupported_error>(compressed_with(R"({"config_groups": {"R4": {}}})")),
                   "\"transform_config\""));
    CHECK(from(compressed_with("{}")).settings.bits == 4);
    CHECK(from(compressed_with("null")).settings.bits == 4);
}

TEST_CASE("AWQ as AutoAWQ and GPTQModel describe it", "[config]") {
    const auto c = from(R"({"quant_method": "awq", "bits": 4, "group_size": 64, "version": "GEMM", "zero_point": true,
                            "modules_to_not_convert": ["lm_head", "mlp.gate", "model.layers.1"]})");
    CHECK(c.format == io::checkpoint_format::awq);
    CHECK(c.settings.bits == 4);
    CHECK(c.settings.group_size == 64);
    CHECK_FALSE(c.settings.sym);
    CHECK_FALSE(c.settings_of("model.layers.0.mlp.gate"));
    CHECK_FALSE(c.settings_of("model.layers.1.mlp.up_proj"));
    CHECK(c.settings_of("model.layers.0.mlp.gate_proj"));
    CHECK(c.settings_of("model.layers.10.mlp.up_proj"));
    const auto object = c.to_json();
    CHECK(object["modules_to_not_convert"].dump() == R"(["lm_head","mlp.gate","model.layers.1"])");
    CHECK(io::quantization_config::from_json(object, "test").to_json() == object);
    using gptq::unsupported_error;
    const auto refused = [](const char* more) {
        return refusal<unsupported_error>(R"({"quant_method": "awq", "group_size": 64, )" + std::string(more) + "}");
    };
    CHECK(contains(refused(R"("version": "gemv")"), "only gemm"));
    CHECK(contains(refused(R"("zero_point": false)"), "zero points"));
    CHECK(contains(refused(R"("bits": 8)"), "8 bits"));
    CHECK(contains(refusal<gptq::format_error>(R"({"quant_method": "awq"})"), "group_size"));
}

TEST_CASE("what the description of AWQ has no words for is refused", "[config]") {
    quantization_config c;
    c.format = io::checkpoint_format::awq;
    c.dynamic = rules_from(R"({"-:.*\\.mlp\\.gate$": {}})");
    CHECK(c.to_json()["modules_to_not_convert"].dump() == R"(["mlp.gate"])");
    using gptq::unsupported_error;
    c.dynamic = rules_from(R"({"-:.*[ab]": {}})");
    CHECK(contains(message_of<unsupported_error>([&] { c.to_json(); }), "[ab]"));
    c.dynamic = rules_from(R"({"a": {"bits": 4}})");
    CHECK(contains(message_of<unsupported_error>([&] { c.to_json(); }), "\"a\""));
    c.dynamic = {};
    c.lm_head = true;
    CHECK(contains(message_of<unsupported_error>([&] { c.to_json(); }), "--lm-head"));
}

TEST_CASE("what is written for compressed-tensors", "[config]") {
    quantization_config c;
    c.format = io::checkpoint_format::compressed_tensors;
    c.settings = gptq::settings::paper();
    c.settings.sym = true;
    c.settings.group_size = 64;
    c.dynamic = rules_from(R"({"a": {"bits": 8, "group_size": -1}, "-:b.*": {}})");
    const auto object = c.to_json();
    CHECK(object["quant_method"] == "compressed-tensors");
    CHECK(object["format"] == "pack-quantized");
    CHECK(object["quantization_status"] == "compressed");
    CHECK(object["ignore"].dump() == R"(["lm_head","re:b.*"])");
    CHECK(object["config_groups"]["group_0"].dump() ==
          R"({"targets":["Linear"],"weights":{"num_bits":4,"type":"int","symmetric":true,"strategy":"group",)"
          R"("group_size":64,"actorder":null,"dynamic":false},"input_activations":null,"output_activations":null})");
    CHECK(object["config_groups"]["group_1"]["targets"].dump() == R"(["re:a"])");
    CHECK(object["config_groups"]["group_1"]["weights"]["strategy"] == "channel");
    CHECK(object["config_groups"]["group_1"]["weights"]["group_size"].is_null());
    CHECK(object["config_groups"]["group_1"]["weights"]["num_bits"] == 8);
    const auto again = quantization_config::from_json(object, "test");
    CHECK(again.to_json()["config_groups"] == object["config_groups"]);
    CHECK(again.to_json()["ignore"].dump() == R"(["re:^lm_head$","re:b.*"])");
    CHECK(again.settings_of("a.x")->bits == 8);
    CHECK_FALSE(again.settings_of("b.x"));
}

TEST_CASE("compressed-tensors beyond packed integers is refused", "[config]") {
    const auto group = [](const std::string& weights, const std::string& rest = "") {
        return R"({"quant_method": "compressed-tensors", "format": "pack-quantized", "config_groups": {"group_0":
                  {"targets": ["Linear"], "weights": )" +
               weights + rest + "}}}";
    };
    const std::string good = R"({"num_bits": 4, "type": "int", "strategy": "group", "group_size": 32})";
    CHECK(from(group(good)).settings.group_size == 32);
    using gptq::unsupported_error;
    CHECK(
        contains(refusal<unsupported_error>(group(good, R"(, "input_activations": {"num_bits": 8})")), "activations"));
    CHECK(contains(refusal<unsupported_error>(group(R"({"num_bits": 8, "type": "float", "strategy": "channel"})")),
                   "float"));
    CHECK(contains(refusal<unsupported_error>(group(R"({"num_bits": 4, "type": "int", "strategy": "tensor"})")),
                   "tensor"));
    CHECK(contains(refusal<unsupported_error>(group(R"({"num_bits": 3, "strategy": "channel"})")), "3 bits"));
    CHECK(contains(refusal<unsupported_error>(group("null")), "no quantized weights"));
    CHECK(contains(refusal<unsupported_error>(
                       R"({"quant_method": "compressed-tensors", "format": "marlin-24", "config_groups": {}})"),
                   "marlin-24"));
    CHECK(contains(refusal<gptq::format_error>(group(R"({"num_bits": 4, "strategy": "group"})")), "group_size"));
    CHECK(contains(refusal<gptq::format_error>(group(R"({"strategy": "channel"})")), "num_bits"));
    CHECK(contains(refusal<gptq::format_error>(R"({"quant_method": "compressed-tensors", "config_groups": 3})"),
                   "config_groups"));
    CHECK(contains(refusal<gptq::format_error>(R"({"quant_method": "compressed-tensors", "config_groups": {
                       "a": {"weights": {"num_bits": 4, "strategy": "channel"}},
                       "b": {"weights": {"num_bits": 8, "strategy": "channel"}}}})"),
                   "no group has targets"));
}

TEST_CASE("configs that GPTQModel wrote", "[config]") {
    const auto shared = shared_dir();
    if (!shared) {
        WARN("skipped: no shared checkpoints");
        return;
    }
    const auto peers = *shared / "data" / "peers";
    CHECK(quantization_config::parse(peers / "gptqmodel-w3g32")->settings.bits == 3);
    CHECK(quantization_config::parse(peers / "gptqmodel-w8pc")->settings.group_size == -1);
    CHECK(quantization_config::parse(peers / "gptqmodel-w4g32act")->settings.order == gptq::order_kind::act);
    CHECK(quantization_config::parse(peers / "gptqmodel-w4g128")->settings.order == gptq::order_kind::group_aware);
    CHECK_FALSE(quantization_config::parse(*shared / "data" / "stories260K"));
}
