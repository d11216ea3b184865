// Every file that a model's folder may hold, with everything in it that strangers could put there: each reader answers
// in time, by an error of the library or not at all, and its message is short and harmless to a terminal.
#include <sys/stat.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include <gptq/error.hpp>
#include <gptq/io/dynamic_rules.hpp>
#include <gptq/io/json.hpp>
#include <gptq/io/model_folder.hpp>
#include <gptq/io/quantization_config.hpp>
#include <gptq/model/adapter.hpp>
#include <gptq/model/chat_template.hpp>
#include <gptq/model/model_config.hpp>
#include <gptq/model/quantize_log.hpp>
#include <gptq/model/stop_tokens.hpp>
#include <gptq/model/tokenizer.hpp>

#include "support/catch.hpp"
#include "support/files.hpp"
#include "support/printable.hpp"
#include "support/shared.hpp"
#include "support/temp_dir.hpp"

namespace {

using namespace gptq_test;
namespace fs = std::filesystem;
namespace io = gptq::io;
namespace model = gptq::model;
using nlohmann::json;

const fs::path golden = source_dir() / "tests" / "golden";

std::string text_of_golden(const std::string& name) { return read_file(golden / name); }

/// A file of a folder: its name, a content that is read, and what reads it.
struct reader {
    std::string name;
    json content;  ///< A string stands for the bytes of a file that is no JSON.
    std::function<void(const fs::path& folder)> read;
};

void read_model(const fs::path& folder) { model::read_model_config(io::model_folder(folder)); }
void read_quantization(const fs::path& folder) { io::quantization_config::parse(folder); }
void read_tokenizer(const fs::path& folder) { model::tokenizer::load(folder).encode_whole("Some words, 12 of them."); }
void read_rules(const fs::path& folder) {
    io::dynamic_rules(io::read_json<nlohmann::ordered_json>(folder / "rules.json"), "rules.json")
        .match("model.layers.0");
}

std::vector<reader> readers() {
    const json weights = {{"type", "int"},    {"num_bits", 4},     {"strategy", "group"},
                          {"group_size", 32}, {"symmetric", true}, {"actorder", "group"}};
    std::vector<reader> all{
        {"config.json", json::parse(text_of_golden("models/llama3/config.json")), read_model},
        {"model.safetensors", text_of_golden("models/llama3/model.safetensors"), read_model},
        {"model.safetensors.index.json",
         {{"weight_map", {{"a", "model-1.safetensors"}}}},
         [](const fs::path& folder) {
             fs::remove(folder / "model.safetensors");
             io::model_folder{folder};
         }},
        {"quantize_config.json",
         {{"bits", 4},
          {"group_size", 32},
          {"desc_act", false},
          {"sym", true},
          {"checkpoint_format", "gptq"},
          {"pack_dtype", "int32"},
          {"dynamic", {{"-:a+", nullptr}, {"+:b.*", {{"bits", 8}}}}},
          {"meta", {{"quantizer", {"x:1"}}, {"damp_percent", 0.01}}}},
         read_quantization},
        {"quant_config.json",
         {{"quant_method", "compressed-tensors"},
          {"format", "pack-quantized"},
          {"ignore", {"re:a.*", "lm_head"}},
          {"config_groups", {{"group_0", {{"targets", {"Linear"}}, {"weights", weights}}}}}},
         read_quantization},
        {"quant_config.json",
         {{"quant_method", "awq"},
          {"version", "gemm"},
          {"bits", 4},
          {"group_size", 32},
          {"zero_point", true},
          {"modules_to_not_convert", {"lm_head", "mlp.gate"}}},
         read_quantization},
        {"rules.json", {{"-:a+", nullptr}, {"b.*", {{"bits", 8}, {"group_size", 32}}}}, read_rules},
        {"tokenizer_config.json",
         {{"bos_token", "<s>"},
          {"eos_token", {{"content", "</s>"}}},
          {"add_bos_token", true},
          {"tokenizer_class", "LlamaTokenizer"}},
         read_tokenizer},
        {"special_tokens_map.json", {{"bos_token", "<s>"}, {"eos_token", {{"content", "</s>"}}}}, read_tokenizer},
        {"tokenizer_config.json",
         {{"chat_template", {{{"name", "default"}, {"template", "<|im_start|>"}}}}},
         [](const fs::path& folder) { model::chat_template::load(folder).render("Hello"); }},
        {"chat_template.jinja", "{{ '<|im_start|>' }}",
         [](const fs::path& folder) { model::chat_template::load(folder).render("Hello"); }},
        {"generation_config.json",
         {{"eos_token_id", {1, 2}}},
         [](const fs::path& folder) { model::stop_tokens(io::model_folder(folder), model::tokenizer::load(folder)); }},
        {"adapter_config.json",
         {{"peft_type", "LORA"},
          {"r", 4},
          {"lora_alpha", 8},
          {"bias", "none"},
          {"rank_pattern", {{"a", 2}}},
          {"alpha_pattern", {{"a", 2}}},
          {"init_lora_weights", "gaussian"},
          {"base_model_name_or_path", "base"}},
         [](const fs::path& folder) { model::adapter::load(folder); }},
        {"adapter_config.json",
         {{"base_model_name_or_path", "base"}},
         [](const fs::path& folder) {
             fs::remove(folder / "config.json");
             io::model_folder{folder};
         }},
        {"quant_log.csv", "layer,module,error,rtn_error,samples,damp_percent,seconds,relative_error,drift_share\n",
         [](const fs::path& folder) { model::read_quant_log(folder / "quant_log.csv"); }},
    };
    for (const char* name : {"gpt2", "llama2", "odd"})
        all.push_back({"tokenizer.json",
                       json::parse(text_of_golden("tokenizers/" + std::string(name) + "/tokenizer.json")),
                       read_tokenizer});
    const json kinds = json::parse(text_of_golden("tokenizer_kinds/cases.json"));
    for (const auto& kind : kinds["tokenizers"])
        if (kind.contains("document")) all.push_back({"tokenizer.json", kind["document"], read_tokenizer});
    return all;
}

/// A folder whose other files are as they should be.
class model_with {
 public:
    model_with() {
        fs::copy_file(golden / "models/llama3/config.json", path() / "config.json");
        fs::copy_file(golden / "models/llama3/model.safetensors", path() / "model.safetensors");
        fs::copy_file(golden / "tokenizers/llama2/tokenizer.json", path() / "tokenizer.json");
    }
    const fs::path& path() const { return folder_.path(); }

 private:
    temp_dir folder_;
};

/// The reader's message; "" if it takes the file. Anything but an error of the library, and any message that is long or
/// not printable, fails the test.
std::string answer(const reader& r, const fs::path& folder) {
    using clock = std::chrono::steady_clock;
    const auto begin = clock::now();
    const auto in_time = [&] { CHECK(clock::now() - begin < std::chrono::seconds(10)); };
    try {
        r.read(folder);
    } catch (const gptq::error& problem) {
        const std::string message = problem.what();
        CHECK(message.size() <= gptq::max_message_bytes);
        CHECK(is_printable(message));
        in_time();
        return message;
    } catch (const std::exception& problem) {
        FAIL_CHECK(r.name << ": " << typeid(problem).name() << ": " << std::string(problem.what()).substr(0, 300));
    }
    in_time();
    return "";
}

std::string bytes_of(const json& content) { return content.is_string() ? content.get<std::string>() : content.dump(); }

std::string answer_to(const reader& r, const model_with& folder, const std::string& bytes) {
    write_file(folder.path() / r.name, bytes);
    return answer(r, folder.path());
}

std::string answer_to(const reader& r, const std::string& bytes) { return answer_to(r, model_with(), bytes); }

/// Calls visit(document) for `document` with `text` in place of every value and of every key, one at a time; of long
/// lists some of them.
template <class Visit>
void put_everywhere(json& document, json& here, const json& text, const Visit& visit) {
    if (!here.is_structured() || here.empty()) {
        const json kept = std::exchange(here, text);
        visit(document);
        here = kept;
        return;
    }
    const std::size_t step = std::max<std::size_t>(1, here.size() / 5);
    std::size_t index = 0;
    for (auto& [key, value] : here.items()) {
        if (index++ % step != 0) continue;
        put_everywhere(document, value, text, visit);
    }
    if (!here.is_object()) return;
    for (std::size_t i = 0; i < here.size(); i += step) {
        const json kept = here;
        const auto at = std::next(here.begin(), static_cast<std::ptrdiff_t>(i));
        here[text.is_string() ? text.get<std::string>() : "other"] = at.value();
        here.erase(std::next(kept.begin(), static_cast<std::ptrdiff_t>(i)).key());
        visit(document);
        here = kept;
    }
}

}  // namespace

TEST_CASE("the files are read as long as nothing is wrong with them") {
    for (const reader& r : readers()) {
        if (r.name == "model.safetensors.index.json" || r.name.starts_with("adapter_")) continue;  // others are missing
        INFO(r.name);
        CHECK(answer_to(r, bytes_of(r.content)) == "");
    }
}

TEST_CASE("what strangers write into files stays short and harmless in messages") {
    const std::string hostile = "\x1b]0;title\a\x1b[2J\r" + std::string(5'000, 'a') + "(\xe2\x80\xae";
    for (const reader& r : readers()) {
        INFO(r.name);
        if (r.content.is_string()) {
            answer_to(r, hostile);
            continue;
        }
        json document = r.content;
        const model_with folder;
        for (const json& value : {json(hostile), json(nullptr), json(-1), json(1e300), json(json::array({hostile})),
                                  json({{hostile, hostile}}), json(std::uint64_t{1} << 63), json(true)})
            put_everywhere(document, document, value, [&](const json& wrong) { answer_to(r, folder, wrong.dump()); });
    }
}

TEST_CASE("a tensor's name and a header's texts stay short and harmless in messages") {
    const std::string hostile = json("\x1b[2J" + std::string(3'000'000, 'n')).dump();
    const reader r{"model.safetensors", nullptr, read_model};
    for (const std::string& header :
         {"{" + hostile + ":{}}", "{" + hostile + ":{\"dtype\":" + hostile + "}}", "{\"a\":{" + hostile + ":1}}",
          "{\"__metadata__\":{" + hostile + ":\"\"," + hostile + ":\"\"}}",
          "{" + hostile + ":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,9]}}", "{\"a\":\"" + hostile})
        CHECK(answer_to(r, safetensors_bytes(header, "x")) != "");
}

TEST_CASE("pipes, devices, folders and huge files under a file's name are refused at once, by name") {
    for (const reader& r : readers()) {
        const model_with folder;
        const fs::path path = folder.path() / r.name;
        INFO(r.name);
        const auto refused = [&](const std::string& what) {
            INFO(what);
            const std::string message = answer(r, folder.path());
            CHECK(contains(message, folder.path().string()));
        };
        fs::remove(path);
        REQUIRE(::mkfifo(path.c_str(), 0600) == 0);
        // Folders without a config.json or weights at all are other tests' matter.
        refused("pipe");
        fs::remove(path);
        fs::create_symlink("/dev/zero", path);
        refused("device");
        fs::remove(path);
        fs::create_directory(path);
        refused("folder");
        fs::remove(path);
        write_file(path, "{");
        fs::resize_file(path, std::uintmax_t{1} << 40);  // takes no room on the disk
        refused("huge file");
    }
}

TEST_CASE("every JSON file has the limits of the one reader") {
    const std::string twice = R"({"a": 1, "a": 2})";
    const std::string deep = "{\"a\":" + std::string(200'000, '[') + std::string(200'000, ']') + "}";
    for (const reader& r : readers()) {
        if (r.content.is_string()) continue;
        INFO(r.name);
        if (r.name == "adapter_config.json" && !r.content.contains("r")) continue;  // its content is only for a message
        CHECK(contains(answer_to(r, twice), "key \"a\" appears twice in one object"));
        CHECK(contains(answer_to(r, deep), "nested deeper than 64 levels"));
    }
}
