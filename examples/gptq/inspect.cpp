// gptq inspect: what a model is made of.
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include <gptq/io/model_folder.hpp>
#include <gptq/io/quantization_config.hpp>
#include <gptq/model/block_description.hpp>
#include <gptq/model/folder_warnings.hpp>
#include <gptq/model/model_config.hpp>

#include "commands.hpp"
#include "output.hpp"

namespace program {
namespace {

namespace io = gptq::io;
namespace model = gptq::model;

/// The layers of one name in all blocks.
struct layer_summary {
    std::string name;
    std::string form;  ///< "F16", or "4 bits, groups of 128"
    std::size_t out_features = 0;
    std::size_t in_features = 0;
    std::size_t count = 0;
    std::uint64_t bytes = 0;
};

struct model_summary {
    model::model_config config;
    std::optional<io::quantization_config> quantization;
    std::vector<layer_summary> layers;
    std::size_t tensors = 0;
    std::uint64_t bytes = 0;
    std::uint64_t parameters = 0;
};

/// Whether `tensor` belongs to the module of that name.
bool belongs(const std::string& tensor, const std::string& module) {
    return tensor.size() > module.size() && tensor.starts_with(module) && tensor[module.size()] == '.';
}

std::string form_of(const model_summary& summary, const io::model_folder& folder, const std::string& module) {
    if (folder.contains(module + ".weight"))
        return std::string(io::dtype_name(folder.tensor(module + ".weight").dtype));
    if (!summary.quantization) return "missing";
    const auto settings = summary.quantization->settings_of(module);
    if (!settings) return "missing";
    return format(
        "%d bits, %s", settings->bits,
        settings->group_size > 0 ? format("groups of %d", settings->group_size).c_str() : "one group per row");
}

/// The name within the block that all experts have in common, with * for the expert.
std::string common_name(const model::block_site& site, std::string name) {
    if (!site.expert) return name;
    const std::string number = "." + std::to_string(*site.expert) + ".";
    return name.replace(name.find(number), number.size(), ".*.");
}

void add_layer(model_summary& summary, const io::model_folder& folder, const model::block_module& described,
               const std::string& name, const std::string& module, const std::vector<std::string>& tensors) {
    layer_summary layer{name, form_of(summary, folder, module), described.out_features, described.in_features, 1, 0};
    // Names are sorted, so a module's tensors are neighbours.
    for (auto at = std::lower_bound(tensors.begin(), tensors.end(), module + ".");
         at != tensors.end() && belongs(*at, module); ++at)
        layer.bytes += folder.tensor(*at).bytes.size();
    const auto same = std::find_if(summary.layers.begin(), summary.layers.end(), [&](const layer_summary& other) {
        return other.name == layer.name && other.form == layer.form;
    });
    if (same != summary.layers.end()) {
        same->bytes += layer.bytes;
        ++same->count;
        return;
    }
    // The forms of a layer stand together.
    const auto last = std::find_if(summary.layers.rbegin(), summary.layers.rend(),
                                   [&](const layer_summary& other) { return other.name == layer.name; });
    summary.layers.insert(last == summary.layers.rend() ? summary.layers.end() : last.base(), layer);
}

/// Parameters of the model: elements of the tensors as they are, but weights for the tensors of quantized layers.
std::uint64_t count_parameters(const model_summary& summary, const io::model_folder& folder) {
    std::uint64_t total = 0;
    for (const std::string& name : folder.tensor_names()) {
        const bool counted = name.ends_with(".weight") || name.ends_with(".bias");
        if (!counted) continue;
        std::uint64_t elements = 1;
        for (const std::size_t extent : folder.tensor(name).shape) elements *= extent;
        total += elements;
    }
    for (const layer_summary& layer : summary.layers)
        if (layer.form.find("bits") != std::string::npos)
            total += static_cast<std::uint64_t>(layer.count) * layer.out_features * layer.in_features;
    return total;
}

model_summary summarize(const io::model_folder& folder) {
    model_summary summary{model::read_model_config(folder), io::quantization_config::parse(folder), {}, 0, 0, 0};
    const auto tensors = folder.tensor_names();
    summary.tensors = tensors.size();
    for (const std::string& name : tensors) summary.bytes += folder.tensor(name).bytes.size();
    for (std::size_t i = 0; i < summary.config.blocks; ++i) {
        const model::block_description block = model::describe_block(summary.config, i);
        for (const model::block_site& site : block.sites)
            for (const model::block_module& m : site.modules)
                add_layer(summary, folder, m, common_name(site, m.name), block.full_name(m), tensors);
    }
    summary.parameters = count_parameters(summary, folder);
    return summary;
}

nlohmann::ordered_json json_of(const model_summary& s) {
    auto layers = nlohmann::ordered_json::array();
    for (const layer_summary& layer : s.layers)
        layers.push_back({{"module", layer.name},
                          {"form", layer.form},
                          {"out_features", layer.out_features},
                          {"in_features", layer.in_features},
                          {"count", layer.count},
                          {"bytes", layer.bytes}});
    const auto& c = s.config;
    return {{"architecture", c.arch.model_type},
            {"blocks", c.blocks},
            {"hidden_size", c.hidden_size},
            {"intermediate_size", c.intermediate_size},
            {"heads", c.heads},
            {"kv_heads", c.kv_heads},
            {"head_dim", c.head_dim},
            {"vocab_size", c.vocab_size},
            {"tied_embeddings", c.tied_embeddings},
            {"tensors", s.tensors},
            {"bytes", s.bytes},
            {"parameters", s.parameters},
            {"quantization", s.quantization ? nlohmann::ordered_json(s.quantization->to_json()) : nullptr},
            {"layers", layers}};
}

/// What the files say of the order: desc_act where groups follow it or columns were quantized by it.
bool has_desc_act(gptq::order_kind order) {
    return order == gptq::order_kind::act || order == gptq::order_kind::act_static;
}

std::string text_of(const io::calibration_record& calibration, const gptq::quantize_settings& settings) {
    std::string text = "made with " + describe(settings) + "\n";
    text += format("calibrated with %zu windows of %zu tokens", calibration.windows, calibration.seqlen);
    if (!calibration.sampling.empty()) text += ", sampling " + calibration.sampling;
    if (calibration.special_tokens) text += *calibration.special_tokens ? ", special tokens" : ", no special tokens";
    return text + "\n";
}

std::string text_of(const io::quantization_config& q) {
    std::string text =
        format("format %s, %s%s%s\n", io::format_name(q.format).c_str(), q.settings.sym ? "symmetric" : "asymmetric",
               has_desc_act(q.settings.order) ? ", desc_act" : "", q.dynamic.empty() ? "" : ", with dynamic rules");
    if (q.calibration) text += text_of(*q.calibration, q.settings);
    if (q.tuning)
        text += format("tuned: step %zu of %zu on %zu windows of %zu tokens%s\n", q.tuning->kept_step, q.tuning->steps,
                       q.tuning->windows, q.tuning->seqlen, q.tuning->norms ? ", with norms" : "");
    return text;
}

std::string text_of(const model_summary& s) {
    const auto& c = s.config;
    std::string text = format(
        "%s: %zu blocks, hidden size %zu, %zu heads of %zu (%zu for keys and values), MLP of %zu, %zu tokens%s\n",
        std::string(c.arch.model_type).c_str(), c.blocks, c.hidden_size, c.heads, c.head_dim, c.kv_heads,
        c.intermediate_size, c.vocab_size, c.tied_embeddings ? ", tied embeddings" : "");
    text += format("%zu tensors, %s, %.2f million parameters, %.2f bits a parameter\n", s.tensors,
                   bytes_string(s.bytes).c_str(), static_cast<double>(s.parameters) / 1e6,
                   8.0 * static_cast<double>(s.bytes) / static_cast<double>(std::max<std::uint64_t>(s.parameters, 1)));
    if (s.quantization) text += text_of(*s.quantization);
    for (const layer_summary& layer : s.layers)
        text += format("  %3zu x %-22s [%zu, %zu]  %s  %s\n", layer.count, layer.name.c_str(), layer.out_features,
                       layer.in_features, layer.form.c_str(), bytes_string(layer.bytes).c_str());
    return text;
}

}  // namespace

void inspect(const common_arguments& arguments) {
    const io::model_folder folder(arguments.model);
    const model_summary summary = summarize(folder);
    for (const std::string& warning : model::folder_warnings(summary.config, folder)) warn(warning);
    arguments.json ? print_json(json_of(summary)) : print(text_of(summary));
}

}  // namespace program
