// gptq diagnose: finds where a quantized model goes wrong, by what it makes of a text beside the float model.
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include <gptq/io/model_folder.hpp>
#include <gptq/model/diagnose.hpp>
#include <gptq/quote.hpp>

#include "commands.hpp"
#include "interrupt.hpp"
#include "output.hpp"
#include "progress.hpp"
#include "quantize.hpp"

namespace program {
namespace {

/// The first few, and how many more there are.
std::string list_of(const std::vector<std::string>& names) {
    constexpr std::size_t most = 3;
    std::string text;
    for (std::size_t i = 0; i < std::min(most, names.size()); ++i) text += (i == 0 ? "" : ", ") + names[i];
    return names.size() <= most ? text : text + format(" and %zu more", names.size() - most);
}

void print_finding(const model::finding& f) {
    const model::fault_description what = model::describe(f.what);
    const std::string example = f.example.empty() ? "" : " (" + f.example + ")";
    const std::string line = what.name + ": " + list_of(f.where) + " " + what.says + example;
    print(gptq::printable(line, gptq::max_message_bytes) + "\n  remedy: " + what.remedy + "\n");
}

/// The layers that lose most.
std::vector<model::layer_diagnosis> worst_of(std::vector<model::layer_diagnosis> layers) {
    std::stable_sort(layers.begin(), layers.end(), [](const auto& a, const auto& b) { return a.error > b.error; });
    if (layers.size() > 5) layers.resize(5);
    return layers;
}

void print_diagnosis(const model::diagnosis& found) {
    print("squared errors, as parts of the float model's squares\n");
    for (std::size_t i = 0; i < found.stream_errors.size(); ++i)
        print(format("states after block %zu: %.4g\n", i, found.stream_errors[i]));
    for (const model::layer_diagnosis& layer : worst_of(found.layers))
        print(format("%s: %.4g, rounded to nearest %.4g\n", layer.name.c_str(), layer.error, layer.rtn_error));
    for (const model::finding& f : found.findings) print_finding(f);
    if (found.findings.empty()) print(format("nothing stands out in %zu quantized layers\n", found.layers.size()));
}

nlohmann::ordered_json json_of(const model::diagnosis& found) {
    // JSON has no number that is none.
    const auto number = [](double x) { return std::isfinite(x) ? nlohmann::ordered_json(x) : nullptr; };
    auto blocks = nlohmann::ordered_json::array(), layers = blocks, findings = blocks;
    for (const double error : found.stream_errors) blocks.push_back(number(error));
    for (const model::layer_diagnosis& layer : found.layers)
        layers.push_back(
            {{"name", layer.name}, {"error", number(layer.error)}, {"rtn_error", number(layer.rtn_error)}});
    for (const model::finding& f : found.findings) {
        const model::fault_description what = model::describe(f.what);
        findings.push_back({{"fault", what.name},
                            {"where", f.where},
                            {"says", what.says},
                            {"example", f.example},
                            {"remedy", what.remedy}});
    }
    return {{"stream_errors", blocks}, {"layers", layers}, {"findings", findings}};
}

}  // namespace

void diagnose(const diagnose_arguments& arguments) {
    const io::model_folder folder(arguments.model), reference(arguments.reference);
    const model::token_windows windows = quantizing::read_windows(reference, arguments);
    progress bar;
    const model::diagnosis found = model::diagnose(folder, reference, windows, [&](std::size_t block) {
        throw_if_interrupted();
        bar.step(format("block %zu", block));
    });
    if (arguments.json) return print_json(json_of(found));
    print_diagnosis(found);
}

}  // namespace program
