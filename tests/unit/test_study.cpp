// Studies: the plan, what is kept of it, the front of the best, and the bits of every layer.
#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <iterator>
#include <limits>
#include <optional>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include <gptq/error.hpp>
#include <gptq/half.hpp>
#include <gptq/io/dynamic_rules.hpp>
#include <gptq/study/allocate.hpp>
#include <gptq/study/chart.hpp>
#include <gptq/study/folder.hpp>
#include <gptq/study/method.hpp>
#include <gptq/study/methods.hpp>
#include <gptq/study/plan.hpp>
#include <gptq/study/report.hpp>
#include <gptq/study/results.hpp>

#include "support/catch.hpp"
#include "support/files.hpp"
#include "support/message.hpp"
#include "support/temp_dir.hpp"

namespace fs = std::filesystem;
namespace study = gptq::study;
using gptq_test::mentions;
using gptq_test::message_of;
using json = nlohmann::ordered_json;

namespace {

/// Refuses groups of 64.
void no_64(const study::study_cell& cell) {
    if (cell.settings.group_size == 64) throw gptq::shape_error("64 divides nothing");
}

gptq::model::perplexity_result scored(const std::vector<std::pair<double, std::size_t>>& windows) {
    gptq::model::detail::nll_sums sums;
    for (const auto& [nll, tokens] : windows) sums.add(nll, tokens);
    return sums.result();
}

study::study_row row(const std::string& method, int bits, std::uint64_t bytes, const std::vector<double>& errors,
                     double nll = 0.0) {
    study::study_row made;
    made.cell.method = method;
    made.cell.settings.bits = bits;
    for (std::size_t i = 0; i < errors.size(); ++i)
        made.result.layers.push_back(
            {i / 2, i % 2 == 0 ? "self_attn.q_proj" : "self_attn.k_proj", errors[i], errors[i] / 100.0, bytes, 1000});
    if (nll > 0.0) made.result.texts.push_back({"text", scored({{nll, 10}, {nll * 1.5, 10}})});
    made.result.bytes = bytes * errors.size() + 500;
    made.result.weights = 1000 * errors.size() + 250;
    made.result.quantize_seconds = 1.5;
    return made;
}

}  // namespace

TEST_CASE("axes span cells, each once, and what does not fit is said") {
    const study::study_axes axes{.methods = {"rtn", "gptq", "awq", "nf4"},
                                 .bits = {2, 4},
                                 .group_sizes = {32, 64},
                                 .grids = {"sym", "asym"},
                                 .orders = {"natural", "gar"}};
    study::check_axes(axes);
    study::study_plan plan;
    study::add_cells(plan, axes, study::study_depth::layers, no_64);
    // rtn knows no order, so that its two orders are one cell; nf4 knows no grid either, and 4 bits only.
    REQUIRE(plan.cells.size() == 2 * 2 + 2 * 2 * 2 + 1);
    CHECK(study::label_of(plan.cells.front()) == "rtn 2 bits g32 sym");
    CHECK(study::label_of(plan.cells.back()) == "nf4 4 bits g32 sym");
    CHECK(plan.cells[1].format == gptq::io::checkpoint_format::gptq_v2);
    const auto says = [&](const char* text) {
        return std::any_of(plan.skipped.begin(), plan.skipped.end(),
                           [&](const auto& s) { return s.reason.find(text) != std::string::npos; });
    };
    CHECK(says("64 divides nothing"));
    CHECK(says("nf4: has 4 bits, not 2"));
    CHECK(says("--depth model"));

    study::study_plan deep;
    study::add_cells(deep, axes, study::study_depth::model, no_64);
    CHECK(deep.cells.size() == 12 + 4);  // without nf4, which no checkpoint holds; awq knows no order
}

TEST_CASE("axes that no study can have are refused, and the message names what would do") {
    const auto refused = [](study::study_axes axes, const char* part) {
        CHECK(mentions(message_of([&] { study::check_axes(axes); }), part));
    };
    refused({.methods = {"exl2"}}, "rtn, gptq, best");
    refused({.bits = {4, 5}}, "5 bits; choose from 2, 3, 4, 8");
    refused({.group_sizes = {48}}, "groups of 48");
    refused({.group_sizes = {0}}, "groups of 0");
    refused({.grids = {"symmetric"}}, "sym, asym");
    refused({.orders = {"random"}}, "natural, act, static, gar");
    refused({.bits = {}}, "at least one");
    CHECK_NOTHROW(study::check_axes({.group_sizes = {48}, .format = gptq::io::checkpoint_format::compressed_tensors}));
}

TEST_CASE("a plan in JSON holds several products, and settings of each") {
    const json plan = json::parse(R"([{"method": "rtn", "bits": [2, 3]}, {"group_size": 64, "damping": 0.05}])");
    const auto axes = study::axes_from_json(plan, {.bits = {8}}, "plan.json");
    REQUIRE(axes.size() == 2);
    CHECK(axes[0].methods == std::vector<std::string>{"rtn"});
    CHECK(axes[0].bits == std::vector<int>{2, 3});
    CHECK(axes[1].bits == std::vector<int>{8});
    CHECK(axes[1].group_sizes == std::vector<int>{64});
    CHECK(axes[1].fixed.damp_percent == 0.05);
    for (const char* bad :
         {R"([])", R"({"bit": 3})", R"({"bits": "3"})", R"({"bits": null})", R"([3])", R"({"damping": 2})"})
        CHECK_THROWS_AS(study::axes_from_json(json::parse(bad), {}, "plan.json"), gptq::format_error);
}

TEST_CASE("a cell of a folder is found by all that decides its result, and by nothing else") {
    const gptq_test::temp_dir dir;
    const json study = {{"version", "1"}, {"model", "a"}, {"weights", "1"}, {"texts", json::array()}};
    const json cell = {{"cell", {{"method", "gptq"}, {"bits", 3}}}, {"version", "1"}};
    json other = cell;
    other["cell"]["bits"] = 4;
    {
        const study::study_folder folder(dir.path() / "s", study);
        CHECK(!folder.result(cell));
        const auto claim = folder.claim(cell);
        REQUIRE(claim);
        CHECK(!folder.claim(cell));  // by another descriptor, as another process would
        CHECK(folder.claim(other));
        folder.save_partial(cell, 1);
        CHECK(folder.partial(cell) == json(1));
        folder.save(cell, {{"perplexity", 5.5}});
        CHECK(!folder.partial(cell));
    }
    json moved = study;
    moved["model"] = "b";  // where the model lies changes nothing
    const study::study_folder folder(dir.path() / "s", moved);
    CHECK(folder.claim(cell));
    CHECK(folder.result(cell) == json({{"perplexity", 5.5}}));
    CHECK(!folder.result(other));
    CHECK(folder.finished().size() == 1);

    json changed = study;
    changed["weights"] = "2";
    CHECK(mentions(message_of([&] { study::study_folder(dir.path() / "s", changed); }),
                   "another study: weights is \"1\" there and \"2\" here"));
    // A file under the name of another cell is not taken for it.
    fs::rename(dir.path() / "s/cells" / (study::study_folder::key_of(cell) + ".json"),
               dir.path() / "s/cells" / (study::study_folder::key_of(other) + ".json"));
    CHECK_THROWS_AS(folder.result(other), gptq::format_error);
    fs::create_directory(dir.path() / "full");
    fs::create_directory(dir.path() / "full/of");
    CHECK_THROWS_AS(study::study_folder(dir.path() / "full", study), gptq::io_error);
    CHECK_THROWS_AS(study::study_folder(dir.path() / "none" / "s", study), gptq::io_error);
    CHECK_THROWS_AS(study::study_folder(dir.path() / "none"), gptq::io_error);
}

TEST_CASE("what a killed process left of a study is in nobody's way") {
    const gptq_test::temp_dir dir;
    const fs::path at = dir.path() / "s";
    const json study = {{"version", "1"}}, cell = {{"cell", 1}}, other = {{"cell", 2}};
    const std::string key = study::study_folder::key_of(cell), others = study::study_folder::key_of(other);
    fs::create_directory(at);
    gptq_test::write_file(at / "study.json.new-12", "{");  // killed while it began
    {
        const study::study_folder folder(at, study);
        fs::create_directories(folder.work(cell) / "deep");
        fs::create_directories(at / "work/1.removed/deep");
        for (const std::string& name : {key + ".json.new-1", key + ".partial.new-1", others + ".json.new-1"})
            gptq_test::write_file(at / "cells" / name, "{");
        gptq_test::write_file(at / "claims" / key, "");
        REQUIRE(folder.claim(cell));
        CHECK(fs::exists(at / "cells" / (others + ".json.new-1")));  // whose claim another process may have
        CHECK(std::distance(fs::directory_iterator(at / "cells"), {}) == 1);
    }
    const study::study_folder folder(at, study);
    CHECK(!fs::exists(at / "work/1.removed"));
    REQUIRE(fs::exists(folder.work(cell)));
    folder.remove_work(cell);
    folder.remove_work(other);
    CHECK(fs::is_empty(at / "work"));
}

TEST_CASE("results survive their files") {
    study::study_row made = row("gptq", 3, 400, {1.0, 2.0}, 7.0);
    made.result.warnings = {"something"};
    made.result.peak_bytes = 12345;
    made.result.machine = {{"threads", 2}};
    const study::cell_result back = study::result_from_json(study::result_json(made.result), "there");
    CHECK(study::result_json(back) == study::result_json(made.result));
    CHECK(back.texts[0].result.perplexity == made.result.texts[0].result.perplexity);
    CHECK(back.texts[0].result.standard_error == made.result.texts[0].result.standard_error);
    CHECK(study::cell_from_json(study::cell_json(made.cell), "there") == made.cell);
    CHECK(back.bits_per_weight() == 8.0 * 800.0 / 2000.0);
    json broken = study::result_json(made.result);
    broken["texts"][0]["windows"][0][1] = 0;
    CHECK_THROWS_AS(study::result_from_json(broken, "there"), gptq::format_error);
}

TEST_CASE("the error of a difference comes from windows in pairs") {
    // Perplexities of 1 in the mean: then p (s - nll n) is s for windows whose sums add up to 0.
    const auto cell = scored({{0.3, 10}, {-0.1, 10}, {-0.2, 10}}), base = scored({{0.2, 10}, {-0.2, 10}, {0.0, 10}});
    const study::paired_difference d = study::difference_of(cell, base);
    CHECK(std::abs(d.difference) < 1e-12);
    const double squares = 0.1 * 0.1 + 0.1 * 0.1 + 0.2 * 0.2;
    REQUIRE(d.standard_error);
    CHECK(std::abs(*d.standard_error - std::sqrt(3.0 / 2.0 * squares) / 30.0) < 1e-12);
    CHECK(study::difference_of(cell, cell).standard_error == 0.0);
    CHECK(!study::difference_of(scored({{1.0, 5}}), scored({{2.0, 5}})).standard_error);
    CHECK_THROWS_AS(study::difference_of(cell, scored({{1.0, 5}})), gptq::shape_error);
}

TEST_CASE("the front has what no other point beats") {
    std::mt19937 random(1);
    std::uniform_int_distribution<int> some(0, 9);
    for (int repeat = 0; repeat < 200; ++repeat) {
        std::vector<study::trade_off> points;
        for (int i = 0; i < 8; ++i) points.push_back({double(some(random)), double(some(random))});
        if (repeat % 3 == 0) points[3].loss = std::numeric_limits<double>::quiet_NaN();
        std::vector<std::size_t> expected;
        for (std::size_t i = 0; i < points.size(); ++i) {
            const auto beats = [&](std::size_t j) {
                const bool no_worse = points[j].cost <= points[i].cost && points[j].loss <= points[i].loss;
                const bool same = points[j].cost == points[i].cost && points[j].loss == points[i].loss;
                return no_worse && (!same || j < i);
            };
            bool beaten = !std::isfinite(points[i].loss);
            for (std::size_t j = 0; j < points.size(); ++j) beaten = beaten || beats(j);
            if (!beaten) expected.push_back(i);
        }
        auto found = study::pareto_front(points);
        CHECK(std::is_sorted(found.begin(), found.end(),
                             [&](auto a, auto b) { return points[a].cost < points[b].cost; }));
        std::sort(found.begin(), found.end());
        CHECK(found == expected);
    }
}

TEST_CASE("recommendations keep their promises") {
    const std::vector<study::study_row> rows = {
        row("float", 16, 2000, {0.0, 0.0}, 10.0), row("gptq", 4, 500, {1.0, 1.0}, 10.1),
        row("gptq", 3, 400, {2.0, 2.0}, 11.0), row("rtn", 3, 400, {3.0, 3.0}, 13.0)};
    CHECK(study::smallest_within(rows, 0.05) == std::optional<std::size_t>(1));
    CHECK(study::smallest_within(rows, 0.2) == std::optional<std::size_t>(2));
    CHECK(!study::smallest_within(rows, 0.001));
    CHECK(study::best_within(rows, 3.5) == std::optional<std::size_t>(2));
    CHECK(study::best_within(rows, 4.5) == std::optional<std::size_t>(1));
    CHECK(!study::best_within(rows, 1.0));
}

TEST_CASE("a knapsack's choice is the best of all, by trying all") {
    std::mt19937 random(2);
    std::uniform_int_distribution<std::uint64_t> size(1, 12);
    std::uniform_real_distribution<double> loss(0.0, 1.0);
    for (int repeat = 0; repeat < 100; ++repeat) {
        std::vector<std::vector<study::knapsack_choice>> items(5);
        std::uint64_t least = 0, most = 0;
        for (auto& item : items) {
            for (int k = 0; k < 3; ++k) item.push_back({1000 + 24 * size(random), loss(random)});
            const auto by_size = [](const auto& a, const auto& b) { return a.bytes < b.bytes; };
            least += std::min_element(item.begin(), item.end(), by_size)->bytes;
            most += std::max_element(item.begin(), item.end(), by_size)->bytes;
        }
        const std::uint64_t room = least + (most - least) * static_cast<std::uint64_t>(repeat % 12) / 10;
        double best = std::numeric_limits<double>::infinity(), allowed = 0.25 * (1 + repeat % 12);
        std::uint64_t smallest = std::numeric_limits<std::uint64_t>::max();
        for (int code = 0; code < 243; ++code) {
            double sum = 0.0;
            std::uint64_t bytes = 0;
            for (std::size_t i = 0, rest = static_cast<std::size_t>(code); i < items.size(); ++i, rest /= 3) {
                sum += items[i][rest % 3].loss;
                bytes += items[i][rest % 3].bytes;
            }
            if (bytes <= room) best = std::min(best, sum);
            if (sum <= allowed) smallest = std::min(smallest, bytes);
        }
        const study::knapsack_solution found = study::solve_knapsack(items, room);
        CHECK(found.exact);
        CHECK(found.unit % 24 == 0);
        CHECK(found.bytes <= room);
        CHECK(std::abs(found.loss - best) < 1e-12);
        if (smallest == std::numeric_limits<std::uint64_t>::max()) {
            CHECK_THROWS_AS(study::smallest_knapsack(items, allowed), gptq::option_error);
            continue;
        }
        const study::knapsack_solution small = study::smallest_knapsack(items, allowed);
        CHECK(small.exact);
        CHECK(small.bytes == smallest);
        CHECK(small.loss <= allowed);
    }
    const std::vector<std::vector<study::knapsack_choice>> one = {{{100, 0.5}, {200, 0.1}}};
    CHECK(mentions(message_of([&] { study::solve_knapsack(one, 99); }), "take 100 bytes"));
    CHECK(mentions(message_of([&] { study::smallest_knapsack(one, 0.05); }), "10.5 % above float", "only 5.13 %"));
    CHECK(study::smallest_knapsack(one, 0.1).chosen == std::vector<std::size_t>{1});
    CHECK(study::smallest_knapsack(one, 0.5).chosen == std::vector<std::size_t>{0});
    CHECK(study::solve_knapsack(one, 1'000'000'000'000).chosen == std::vector<std::size_t>{1});
}

TEST_CASE("a size in too many units is counted in larger ones, and still kept") {
    std::vector<std::vector<study::knapsack_choice>> items;
    for (std::uint64_t i = 0; i < 3; ++i) items.push_back({{1, 1.0}, {2'000'003 + i, 0.5}, {4'000'037 + 7 * i, 0.2}});
    const study::knapsack_solution found = study::solve_knapsack(items, 8'100'000);
    CHECK(!found.exact);
    CHECK(found.bytes <= 8'100'000);
    CHECK(std::abs(found.loss - 1.2) < 1e-12);
    CHECK(study::smallest_knapsack(items, 1.3).loss <= 1.3);
    CHECK(std::abs(study::smallest_knapsack(items, 0.61).loss - 0.6) < 1e-12);  // the largest of all still fits
}

TEST_CASE("an allocation spends bits where the model feels them, and its rules say so") {
    // Block 1 is as wrong as block 0 by its error, but the model feels it ten times as much.
    const std::vector<study::study_row> rows = {row("gptq", 2, 250, {8.0, 8.0, 8.0, 8.0}),
                                                row("gptq", 4, 500, {1.0, 1.0, 1.0, 1.0}),
                                                row("rtn", 2, 1, {0.0, 0.0, 0.0, 0.0})};
    const std::vector<std::string> modules = {"self_attn.q_proj", "self_attn.k_proj"};
    const std::vector<study::stage_sensitivity> felt = {{0, modules, 16.0, 0.01}, {1, modules, 16.0, 0.1}};
    const study::allocation_problem problem = study::allocation_of(rows, felt, "gptq");
    REQUIRE(problem.items.size() == 2);
    CHECK(problem.weights == 4000);
    CHECK(problem.other_bytes == 500);
    CHECK(problem.items[1].choices[0].bytes == 500);
    CHECK(problem.items[1].choices[0].loss == 0.1);
    const study::knapsack_solution solution = study::allocate_bytes(problem, 1500);
    CHECK(solution.chosen == std::vector<std::size_t>{0, 1});
    const json rules = study::allocation_rules(problem, solution, "model.layers.");
    const gptq::io::dynamic_rules read(rules, "rules");
    CHECK(read.match("model.layers.0.self_attn.q_proj").bits == 2);
    CHECK(read.match("model.layers.1.self_attn.k_proj").bits == 4);
    CHECK(read.match("model.layers.1.self_attn.qkv_proj").bits == 4);  // as vLLM calls the three
    CHECK(!read.match("model.layers.10.self_attn.k_proj").bits);
    CHECK(!read.match("model.layers.1.self_attn.k_proj_norm").bits);

    CHECK(mentions(message_of([&] { study::allocation_of(rows, felt, "rtn"); }), "1 finished cells"));
    auto two_orders = rows;
    two_orders[1].cell.settings.order = gptq::order_kind::act;
    CHECK(mentions(message_of([&] { study::allocation_of(two_orders, felt, "gptq"); }), "one order"));
}

TEST_CASE("NF4 and FP4 take the nearest of their values") {
    // The values of bitsandbytes' documentation and of E2M1, to six digits and written by hand.
    const std::vector<double> nf4 = {-1.0,      -0.696193, -0.525073, -0.394917, -0.284441, -0.184773, -0.0910500, 0.0,
                                     0.0795803, 0.160930,  0.246112,  0.337915,  0.440710,  0.562617,  0.722957,   1.0};
    const std::vector<double> fp4 = {-6, -4, -3, -2, -1.5, -1, -0.5, 0, 0.5, 1, 1.5, 2, 3, 4, 6};
    std::mt19937 random(3);
    std::normal_distribution<float> normal;
    gptq::matrix<float> W(3, 64);
    for (std::size_t n = 0; n < 3; ++n)
        for (std::size_t k = 0; k < 64; ++k) W(n, k) = normal(random);
    gptq::basic_hessian<gptq::cpu_backend> H(64);
    for (const auto& [name, values] : {std::pair("nf4", nf4), std::pair("fp4", fp4)}) {
        const study::study_method& method = study::find_method(name);
        const auto settings = method.settings_of({.bits = 4, .group_size = 32});
        const gptq::quantized_layer layer =
            method.solve({std::as_const(W).view(), H, nullptr, settings, gptq::io::checkpoint_format::gptq});
        gptq::matrix<float> Q(3, 64);
        gptq::dequantize_into(layer.view(), Q.view());
        for (std::size_t n = 0; n < 3; ++n)
            for (std::size_t k = 0; k < 64; ++k) {
                float largest = 0.0f;
                for (std::size_t i = k / 32 * 32; i < k / 32 * 32 + 32; ++i)
                    largest = std::max(largest, std::abs(W(n, i)));
                const double scale = gptq::to_float(gptq::to_half(largest / static_cast<float>(values.back())));
                double nearest = 0.0;
                for (const double v : values)
                    if (std::abs(v * scale - W(n, k)) < std::abs(nearest - W(n, k))) nearest = v * scale;
                CHECK(std::abs(Q(n, k) - nearest) < 1e-5 * scale * 6.0 + 1e-6);
            }
    }
}

TEST_CASE("a report has its tables without gnuplot, and nothing of a name becomes markup") {
    std::vector<study::study_row> rows = {row("float", 16, 2000, {0.0, 0.0}, 10.0),
                                          row("gptq", 4, 500, {1.0, 1.0}, 10.1)};
    for (study::study_row& r : rows) r.result.texts[0].name = "<b>\"x\" `id`";
    const json about = {{"version", "1"}, {"model", "a & b"}};
    const std::vector<study::skipped_cell> skipped = {{"gptq 2 bits", "because of <this>"}};
    const std::string plain = study::report_html(rows, skipped, about, {});
    CHECK(plain.find("gnuplot-nox") != std::string::npos);
    CHECK(plain.find("<b>") == std::string::npos);
    CHECK(plain.find("a &amp; b") != std::string::npos);
    CHECK(plain.find("because of &lt;this&gt;") != std::string::npos);
    CHECK(plain.find("http") == std::string::npos);  // no network
    std::vector<std::string> scripts;
    const std::string drawn = study::report_html(rows, skipped, about, [&](const std::string& script) {
        scripts.push_back(script);
        return std::optional<std::string>("<?xml?><svg stroke=\"black\" id='gpDot'></svg>");
    });
    CHECK(scripts.size() == 3);  // bits, time, and one cell's layers
    for (const std::string& script : scripts) CHECK(script.find('`') == std::string::npos);
    CHECK(drawn.find("<svg role=\"img\"") != std::string::npos);
    CHECK(drawn.find("\"black\"") == std::string::npos);
    CHECK(drawn.find("'c1gpDot'") != std::string::npos);
    const std::string csv = study::results_csv(rows);
    CHECK(std::count(csv.begin(), csv.end(), '\n') == 3);
}
