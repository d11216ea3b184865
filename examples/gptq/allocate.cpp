// gptq allocate: from the layer errors of a study to the bits of every layer.
#include <charconv>
#include <cmath>
#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <system_error>

#include <nlohmann/json.hpp>

#include <gptq/error.hpp>
#include <gptq/io/file.hpp>
#include <gptq/io/folder_writer.hpp>
#include <gptq/io/json.hpp>
#include <gptq/study/allocate.hpp>
#include <gptq/study/folder.hpp>
#include <gptq/study/run_study.hpp>

#include "commands.hpp"
#include "output.hpp"

namespace program {
namespace {

namespace studies = gptq::study;

/// "4.2GB", "300 MB", or bytes. Units are powers of 1000.
std::uint64_t bytes_of(const std::string& text) {
    static const std::map<std::string, double> units = {{"", 1.0}, {"B", 1.0}, {"kB", 1e3}, {"MB", 1e6}, {"GB", 1e9}};
    double number = 0.0;
    const char* end = text.data() + text.size();
    const auto [last, problem] = std::from_chars(text.data(), end, number);
    std::string unit(last, end);
    unit.erase(0, unit.find_first_not_of(' '));
    const auto known = units.find(unit);
    if (problem != std::errc() || known == units.end() || !(number > 0.0) || number * known->second > 1e18)
        throw gptq::option_error("--size " + text + ": give a size such as 4.2GB or 300MB");
    return static_cast<std::uint64_t>(number * known->second);
}

/// Bytes for the quantized layers.
std::uint64_t room_for(const allocate_arguments& a, const studies::allocation_problem& problem) {
    if (a.size.empty())
        return static_cast<std::uint64_t>(a.bits_per_weight * static_cast<double>(problem.weights) / 8.0);
    const std::uint64_t size = bytes_of(a.size);
    if (size <= problem.other_bytes)
        throw gptq::option_error("--size " + a.size + ": what is not quantized takes " +
                                 bytes_string(problem.other_bytes) + " alone; give more");
    return size - problem.other_bytes;
}

/// "+3%" as what the loss may grow by, in nats a token.
double loss_of(const std::string& text) {
    double number = 0.0;
    const char* end = text.data() + text.size();
    const auto [last, problem] = std::from_chars(text.data() + (text.starts_with('+') ? 1 : 0), end, number);
    if (problem != std::errc() || std::string(last, end) != "%" || !(number > 0.0) || !std::isfinite(number))
        throw gptq::option_error("--perplexity " + text + ": give how far above float it may be, such as +3%");
    return std::log1p(number / 100.0);
}

studies::knapsack_solution solve(const allocate_arguments& a, const studies::allocation_problem& problem) {
    if (!a.perplexity.empty()) return studies::allocate_loss(problem, loss_of(a.perplexity));
    return studies::allocate_bytes(problem, room_for(a, problem));
}

void write_rules(const std::string& path, const nlohmann::ordered_json& rules) {
    gptq::io::refuse_existing(path);
    gptq::io::output_file file(path + ".new");
    try {
        file.write_at(0, gptq::io::bytes_of(gptq::io::json_text(rules, path)));
        file.close();
        gptq::io::detail::replace_file(file.path(), path);
    } catch (...) {
        std::error_code ignored;
        std::filesystem::remove(file.path(), ignored);
        throw;
    }
}

/// How many layers have each choice.
std::map<std::string, std::size_t> counts_of(const studies::allocation_problem& problem,
                                             const studies::knapsack_solution& solution) {
    std::map<std::string, std::size_t> counts;
    for (std::size_t i = 0; i < problem.items.size(); ++i)
        counts[studies::label_of(problem.settings[solution.chosen[i]])] += problem.items[i].modules.size();
    return counts;
}

}  // namespace

void allocate(const allocate_arguments& a) {
    gptq::io::refuse_existing(a.rules);
    const studies::study_folder folder(a.model);
    const auto sensitivities = studies::read_sensitivities(folder);
    if (!sensitivities)
        throw gptq::error(a.model +
                          ": has no sensitivities; run gptq study --depth layers with gptq or best among its methods");
    const auto problem =
        studies::allocation_of(studies::read_rows(folder, studies::study_depth::layers), *sensitivities, a.method);
    const studies::knapsack_solution solution = solve(a, problem);
    const auto blocks = gptq::io::setting<std::string>(folder.study(), "blocks", a.model + ": study.json");
    write_rules(a.rules, studies::allocation_rules(problem, solution, blocks.value_or("")));

    const double bits = 8.0 * static_cast<double>(solution.bytes) / static_cast<double>(problem.weights);
    const double increase = 100.0 * std::expm1(solution.loss);
    const auto counts = counts_of(problem, solution);
    if (a.json)
        return print_json({{"rules", a.rules},
                           {"bits_per_weight", bits},
                           {"bytes", solution.bytes + problem.other_bytes},
                           {"predicted_increase_percent", increase},
                           {"exact", solution.exact},
                           {"layers", counts}});
    print(format("%s: %.4f bits a weight, %s with all tensors, perplexity %.2f %% above float as predicted\n",
                 a.rules.c_str(), bits, bytes_string(solution.bytes + problem.other_bytes).c_str(), increase));
    for (const auto& [label, count] : counts) print(format("%6zu layers: %s\n", count, label.c_str()));
    if (!solution.exact)
        print(format("sizes were counted in units of %s, so that a few more bytes than needed may be free\n",
                     bytes_string(solution.unit).c_str()));
}

}  // namespace program
