// Quantizing a model in several runs, each of which is stopped somewhere: the bytes are those of one undisturbed run, and
// nothing that was finished is computed again.
#include "support/catch.hpp"

#include <csignal>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <limits>
#include <string>
#include <vector>

#include <gptq/communicator.hpp>
#include <gptq/error.hpp>
#include <gptq/io/model_folder.hpp>
#include <gptq/model/quantize_model.hpp>
#include <gptq/thread_ranks.hpp>

#include "program/run_program.hpp"
#include "program/tiny_model.hpp"
#include "support/failing_files.hpp"
#include "support/message.hpp"
#include "support/sanitized.hpp"
#include "support/temp_dir.hpp"
#include "support/threads.hpp"

namespace fs = std::filesystem;
namespace io = gptq::io;
namespace model = gptq::model;
using gptq_test::mentions;
using gptq_test::message_of;
using gptq_test::read_file;
using gptq_test::run_program;
using gptq_test::skipped;
using gptq_test::write_file;

namespace {

model::token_windows some_windows(std::size_t count, std::size_t length) {
    const std::string text = gptq_test::some_text(count * length);
    return {std::vector<std::int32_t>(text.begin(), text.end()), length};
}

/// What a folder holds, but for the seconds in quant_log.csv.
std::vector<std::pair<std::string, std::string>> contents(const fs::path& folder) {
    std::vector<std::pair<std::string, std::string>> all;
    for (const std::string& name : gptq_test::names_in(folder)) {
        if (name != model::quant_log_name) {
            all.emplace_back(name, read_file(folder / name));
            continue;
        }
        auto records = model::read_quant_log(folder / name);
        for (auto& record : records) record.seconds = 0.0;
        all.emplace_back(name, model::quant_log(records));
    }
    return all;
}

/// Counts modules, and stops the work after some of them.
struct counter {
    std::size_t stop_after = std::numeric_limits<std::size_t>::max();
    std::vector<std::string> modules = {};
    std::size_t resumed = 0;

    void on_progress(double, const std::string&) const {
        if (modules.size() >= stop_after) throw gptq::cancelled("enough");
    }
    void on_module(const model::module_record& r) { modules.push_back(std::to_string(r.layer) + "." + r.module); }
    void on_columns(std::size_t, std::size_t) const {}
    void on_resumed(std::size_t done, std::size_t) { resumed = done; }
};

struct scene {
    gptq_test::temp_dir temporary;
    fs::path source = temporary.path() / "source";
    fs::path out = temporary.path() / "out";
    fs::path partial = temporary.path() / "out.partial";
    model::token_windows windows = some_windows(4, 64);
    model::quantize_model_options options;

    explicit scene(const gptq_test::tiny_model& sizes = {.blocks = 3}) {
        gptq_test::write_tiny_model(source, sizes);
        options.config.settings.group_size = 32;
    }

    model::quantize_result run(counter& watching, const fs::path& to) const {
        return model::quantize_model(io::model_folder(source), to, windows, options, watching);
    }
    void run_until(std::size_t modules) const {
        counter stopped{.stop_after = modules};
        CHECK_THROWS_AS(run(stopped, out), gptq::cancelled);
    }
    std::string complaint() const {
        return message_of([&] {
            counter watching;
            run(watching, out);
        });
    }
};

/// Three chunks of calibration text and a bit, on several ranks.
struct rank_scene : scene {
    explicit rank_scene(const gptq_test::tiny_model& sizes = {.blocks = 2}) : scene(sizes) {
        windows = some_windows(25, 256);
        options.sums_in_order = true;
    }

    /// What each rank said that threw, where rank `r` is watched by watching[r].
    std::vector<std::string> run_on(std::vector<counter>& watching, const fs::path& to) const {
        gptq::thread_ranks all(watching.size());
        std::vector<std::string> said(watching.size());
        gptq_test::on_ranks(watching.size(), [&](std::size_t rank) {
            auto ranks = all.of(rank);
            model::quantize_model_options mine = options;
            mine.ranks = ranks;
            said[rank] =
                message_of([&] { model::quantize_model(io::model_folder(source), to, windows, mine, watching[rank]); });
        });
        return said;
    }
    void check_same_bytes(std::size_t size) const {
        counter alone;
        run(alone, temporary.path() / "alone");
        std::vector<counter> watching(size);
        CHECK(run_on(watching, out) == std::vector<std::string>(size, "nothing was thrown"));
        for (const counter& one : watching) CHECK(one.modules == alone.modules);
        CHECK(contents(out) == contents(temporary.path() / "alone"));
        CHECK_FALSE(fs::exists(partial));
    }
};

constexpr std::size_t modules_a_block = 7;

/// Under a sanitizer, which makes each run slow, only some stops: at a block's end, and in the middle of others.
#ifdef GPTQ_TEST_SANITIZED
constexpr std::size_t stop_step = 6;
#else
constexpr std::size_t stop_step = 1;
#endif

/// Stops after 1, 1 + stop_step, ... modules, and goes on.
void check_every_stop(const scene& s) {
    counter whole;
    const auto expected = s.run(whole, s.temporary.path() / "undisturbed");
    const auto wanted = contents(s.temporary.path() / "undisturbed");
    for (std::size_t stop = 1; stop < whole.modules.size(); stop += stop_step) {
        CAPTURE(stop);
        s.run_until(stop);
        CHECK_FALSE(fs::exists(s.out));
        const std::size_t finished = stop / modules_a_block;
        CHECK(fs::exists(s.partial) == (finished != 0));
        counter rest;
        const auto result = s.run(rest, s.out);
        CHECK(rest.resumed == finished);
        CHECK(rest.modules ==
              std::vector<std::string>(whole.modules.begin() + static_cast<std::ptrdiff_t>(finished * modules_a_block),
                                       whole.modules.end()));
        CHECK(result.modules.size() == whole.modules.size());
        CHECK(result.warnings == expected.warnings);
        CHECK(result.bits_per_weight == expected.bits_per_weight);
        CHECK(result.bytes == expected.bytes);
        REQUIRE(contents(s.out) == wanted);
        CHECK_FALSE(fs::exists(s.partial));
        fs::remove_all(s.out);
    }
}

}  // namespace

TEST_CASE("a run that is stopped anywhere and gone on with gives the bytes of one that is not") {
    scene s;
    SECTION("with the settings as they are") {}
    SECTION("with everything that helps, in few bits, and in another format") {
        s.options.config.settings = gptq::settings::best(2);
        s.options.config.settings.group_size = 32;
        s.options.config.settings.sym = false;
        s.options.config.format = io::checkpoint_format::gptq_v2;
    }
    SECTION("as compressed-tensors, groups following the order") {
        s.options.config.settings.order = gptq::order_kind::act;
        s.options.config.format = io::checkpoint_format::compressed_tensors;
    }
    SECTION("rounded to nearest, with the output layer, and one block left alone") {
        s.options.config.settings = gptq::settings::nearest();
        s.options.config.settings.group_size = 32;
        s.options.config.lm_head = true;
    }
    SECTION("with scales folded into norms") {
        s.options.config.settings = gptq::settings::awq();
        s.options.config.settings.group_size = 32;
        s.options.config.format = io::checkpoint_format::gptq_v2;
    }
    check_every_stop(s);
}

TEST_CASE("a run that is stopped again and again ends all the same") {
    const scene s;
    counter whole;
    s.run(whole, s.temporary.path() / "undisturbed");
    for (int i = 0; i < 2; ++i) s.run_until(modules_a_block + 1);
    counter rest;
    s.run(rest, s.out);
    CHECK(rest.modules.size() == modules_a_block);
    CHECK(contents(s.out) == contents(s.temporary.path() / "undisturbed"));
}

namespace {

/// Call `n` of those that a run makes to write fails, alone or with all that follow. Nothing is lost then but the block
/// in hand, and the run goes on to the undisturbed bytes.
void check_failing_call(const scene& s, std::size_t n, bool all_later,
                        const std::vector<std::pair<std::string, std::string>>& wanted) {
    CAPTURE(n, all_later);
    const std::string below = s.out.string();
    counter failed, rest;
    gptq_test::files_that_fail = {.below = below, .first = n, .all_later = all_later};
    const std::string complaint = message_of([&] { s.run(failed, s.out); });
    const std::string call = gptq_test::files_that_fail.first_failed;
    gptq_test::files_that_fail = {};
    CAPTURE(call, complaint);
    CHECK(call != "");
    const bool told = mentions(complaint, s.temporary.path().string(), "Input/output error");
    if (fs::exists(s.out)) {
        CHECK(contents(s.out) == wanted);
        if (told) fs::remove_all(s.partial);  // nobody knows whether the last rename is on the disk
    } else {
        CHECK(told);
        s.run(rest, s.out);
        CHECK(rest.resumed + 1 >= failed.modules.size() / modules_a_block);
        CHECK(rest.resumed <= failed.modules.size() / modules_a_block);
        CHECK(contents(s.out) == wanted);
    }
    CHECK_FALSE(fs::exists(s.partial));
    fs::remove_all(s.out);
}

void check_failing_calls(std::size_t most) {
    scene s({.hidden = 32, .intermediate = 32, .heads = 2, .kv_heads = 2, .shard_bytes = 40'000});
    s.windows = some_windows(2, 32);
    counter whole;
    const std::string below = s.out.string();
    gptq_test::files_that_fail = {.below = below};
    s.run(whole, s.out);
    const std::size_t calls = gptq_test::files_that_fail.calls;
    gptq_test::files_that_fail = {};
    REQUIRE(calls > 30);
    const auto wanted = contents(s.out);
    fs::remove_all(s.out);
    for (std::size_t i = 0; i < std::min(most, calls); ++i)
        for (const bool all_later : {false, true})
            check_failing_call(s, i * calls / std::min(most, calls), all_later, wanted);
}

}  // namespace

TEST_CASE("where any call that writes fails, only the block in hand is lost, and the run goes on to the same bytes") {
    check_failing_calls(20);
}

TEST_CASE("the same for every such call of a run", "[many]") {
    check_failing_calls(std::numeric_limits<std::size_t>::max());
}

TEST_CASE("an unfinished run of another model, text or settings is refused, saying what differs") {
    scene s;
    s.run_until(modules_a_block + 1);
    const auto before = gptq_test::names_in(s.partial);
    SECTION("settings") {
        s.options.config.settings.bits = 3;
        CHECK(mentions(s.complaint(), s.partial.string(), "bits is 4 there and 3 here", "--restart"));
    }
    SECTION("a setting that only the description's origin tells") {
        s.options.config.settings.candidates = 2;
        CHECK(mentions(s.complaint(), "candidates is 1 there and 2 here"));
    }
    SECTION("text") {
        s.windows.tokens.back() ^= 1;
        CHECK(mentions(s.complaint(), "tokens is"));
    }
    SECTION("model") {
        std::string bytes = read_file(s.source / "model.safetensors");
        char& first_of_head = bytes[bytes.size() - 256 * 64 * sizeof(float)];
        first_of_head = static_cast<char>(first_of_head ^ 1);
        write_file(s.source / "model.safetensors", bytes);
        CHECK(mentions(s.complaint(), "source is"));
    }
    CHECK(gptq_test::names_in(s.partial) == before);
    s.options.restart = true;
    counter again;
    s.run(again, s.out);
    CHECK(again.resumed == 0);
    CHECK(again.modules.size() == 3 * modules_a_block);
    CHECK_FALSE(fs::exists(s.partial));
}

TEST_CASE("what is damaged in an unfinished run is said, and can be discarded") {
    scene s;
    s.run_until(2 * modules_a_block);
    SECTION("the record") { write_file(s.partial / "run.json", "{"); }
    SECTION("the record's log") {
        auto state = nlohmann::ordered_json::parse(read_file(s.partial / "run.json"));
        state["log"] = "layer\nx\n";
        write_file(s.partial / "run.json", state.dump());
    }
    SECTION("a block that is missing") { fs::remove(s.partial / "0.safetensors"); }
    CHECK(mentions(s.complaint(), s.partial.string(), "damaged", "--restart"));
    s.options.restart = true;
    counter again;
    s.run(again, s.out);
    CHECK(again.modules.size() == 3 * modules_a_block);
}

TEST_CASE("a block that is not the codes of this model is refused, not used") {
    const scene s;
    s.run_until(2 * modules_a_block);
    const std::string bytes = read_file(s.partial / "1.safetensors");
    write_file(s.partial / "1.safetensors", bytes.substr(0, bytes.size() / 2));
    CHECK(mentions(s.complaint(), "1.safetensors"));
    fs::copy_file(s.partial / "0.safetensors", s.partial / "1.safetensors", fs::copy_options::overwrite_existing);
    CHECK(mentions(s.complaint(), "1.safetensors", "model.layers.1.self_attn.q_proj"));
    write_file(s.partial / "1.safetensors", bytes);
    counter rest;
    s.run(rest, s.out);
    CHECK(rest.modules.size() == modules_a_block);
}

TEST_CASE("a folder of that name that no run has made is left as it is") {
    const scene s;
    fs::create_directory(s.partial);
    write_file(s.partial / "thesis.txt", "x");
    counter nobody;
    CHECK(message_of<gptq::io_error>([&] { s.run(nobody, s.out); }).find("thesis.txt") != std::string::npos);
    CHECK(contents(s.partial).size() == 1);
    CHECK(nobody.modules.empty());
}

TEST_CASE("a block without its line in the record counts for nothing") {
    // As a run leaves it that is killed between the two.
    const scene s;
    counter whole;
    s.run(whole, s.temporary.path() / "undisturbed");
    s.run_until(modules_a_block + 1);
    write_file(s.partial / "1.safetensors", "half of a block");
    write_file(s.partial / "1.safetensors.new", "half of a block");
    write_file(s.partial / "run.json.new", "{");
    fs::create_directory(s.partial / "result");
    counter rest;
    s.run(rest, s.out);
    CHECK(rest.resumed == 1);
    CHECK(contents(s.out) == contents(s.temporary.path() / "undisturbed"));
}

TEST_CASE("two runs on one folder at the same time: the second is refused at its start") {
    struct second_run : counter {
        const scene* s = nullptr;
        std::string complaint = {};
        void on_module(const model::module_record& r) {
            if (modules.empty()) complaint = s->complaint();
            counter::on_module(r);
        }
    };
    const scene s;
    second_run first;
    first.s = &s;
    model::quantize_model(io::model_folder(s.source), s.out, s.windows, s.options, first);
    CHECK(mentions(first.complaint, s.out.string(), "another run works on it"));
    CHECK(first.modules.size() == 3 * modules_a_block);
}

// ---- the program ----------------------------------------------------------------------------------------------------

namespace {

struct program_scene {
    gptq_test::temp_dir temporary;
    fs::path source = temporary.path() / "source", text = temporary.path() / "calib.txt";
    fs::path partial = temporary.path() / "out.partial";

    program_scene() {
        gptq_test::write_tiny_model(
            source, {.hidden = 128, .intermediate = 256, .blocks = 6, .heads = 4, .kv_heads = 4, .head_dim = 32});
        write_file(text, gptq_test::some_text(8000));
    }

    gptq_test::run_result quantize(const std::string& out, const gptq_test::run_limits& limits = {},
                                   const std::vector<std::string>& more = {}) const {
        std::vector<std::string> arguments = {"quantize",
                                              source.string(),
                                              (temporary.path() / out).string(),
                                              "--calib",
                                              text.string(),
                                              "--group-size",
                                              "32",
                                              "--nsamples",
                                              "16",
                                              "--seqlen",
                                              "64"};
        arguments.insert(arguments.end(), more.begin(), more.end());
        return run_program(gptq_test::with_defaults(arguments, {"--threads", "1"}), limits);
    }

    std::vector<std::pair<std::string, std::string>> undisturbed() const {
        REQUIRE(quantize("undisturbed").status == 0);
        return contents(temporary.path() / "undisturbed");
    }
};

}  // namespace

TEST_CASE("a program that is killed anywhere goes on where it was", "[runs]") {
    if (skipped()) return;
    const program_scene s;
    const auto wanted = s.undisturbed();
    for (const char* moment : {"layer 0 self_attn.q", "layer 1 self_attn.q", "layer 2 mlp.down", "layer 5 mlp.down"}) {
        CAPTURE(moment);
        const auto killed = s.quantize("out", {.signal_after = {{moment, SIGKILL}}});
        if (killed.status != 0) {  // else it was faster
            CHECK(killed.status == 128 + SIGKILL);
            CHECK_FALSE(fs::exists(s.temporary.path() / "out"));
            const auto result = s.quantize("out");
            INFO(result.err);
            CHECK(result.status == 0);
            CHECK(mentions(result.err, "of 6 blocks are finished") == !mentions(result.err, "layer 0 "));
        }
        CHECK(contents(s.temporary.path() / "out") == wanted);
        CHECK_FALSE(fs::exists(s.partial));
        fs::remove_all(s.temporary.path() / "out");
    }
}

TEST_CASE("a program that is asked to stop says where its work is", "[runs]") {
    if (skipped()) return;
    const program_scene s;
    const auto wanted = s.undisturbed();
    for (const int signal : {SIGINT, SIGTERM, SIGHUP}) {
        CAPTURE(signal);
        const auto stopped = s.quantize("out", {.signal_after = {{"layer 1 self_attn.q", signal}}});
        INFO(stopped.err);
        CHECK(stopped.status == 1);
        CHECK(mentions(stopped.err, "interrupted", s.partial.string(), "goes on"));
        const auto other = s.quantize("out", {}, {"--bits", "8"});
        CHECK(other.status == 1);
        CHECK(mentions(other.err, "bits is 4 there and 8 here", "--restart"));
        CHECK(s.quantize("out").status == 0);
        CHECK(contents(s.temporary.path() / "out") == wanted);
        fs::remove_all(s.temporary.path() / "out");
    }
}

TEST_CASE("a full disk is told, and the run goes on when there is room", "[runs]") {
    if (skipped()) return;
    const program_scene s;
    const auto wanted = s.undisturbed();
    // Room for each block, which is written behind half a megabyte for its header, and not for all of them together.
    const auto full = s.quantize("out", {.file_bytes = 800'000});
    INFO(full.err);
    CHECK(full.status == 1);
    CHECK(mentions(full.err, "cannot write", "File too large"));
    CHECK_FALSE(fs::exists(s.temporary.path() / "out"));
    const auto result = s.quantize("out");
    CHECK(result.status == 0);
    CHECK(mentions(result.err, "6 of 6 blocks"));
    CHECK_FALSE(mentions(result.err, "layer 0"));
    CHECK(contents(s.temporary.path() / "out") == wanted);
}

TEST_CASE("--reproducible: the same bytes with any number of threads and whatever kernels the machine prefers",
          "[runs]") {
    if (skipped()) return;
    const program_scene s;
    const auto evaluate = [&](const char* threads) {
        return run_program({"eval", s.source.string(), "--text", s.text.string(), "--seqlen", "256", "--max-tokens",
                            "1024", "--threads", threads, "--reproducible", "--json"});
    };
    std::vector<std::pair<std::string, std::string>> wanted;
    double wanted_nll = 0.0;
    for (const auto& [threads, isa] : {std::pair("1", ""), {"2", "portable"}, {"4", "avx512"}, {"8", "avx2"}}) {
        CAPTURE(threads, isa);
        ::setenv("GPTQ_ISA", isa, 1);
        const auto made = s.quantize("out", {}, {"--reproducible", "--threads", threads});
        const auto scored = evaluate(threads);
        ::unsetenv("GPTQ_ISA");
        if (mentions(made.err, "--reproducible computes by the kernels for")) return;  // and this machine has none
        INFO(made.err << scored.err);
        REQUIRE(made.status == 0);
        REQUIRE(scored.status == 0);
        const auto bytes = contents(s.temporary.path() / "out");
        const double nll = nlohmann::json::parse(scored.out)["nll"];
        if (wanted.empty()) wanted = bytes, wanted_nll = nll;
        CHECK(bytes == wanted);
        CHECK(nll == wanted_nll);
        fs::remove_all(s.temporary.path() / "out");
    }
}

TEST_CASE("several ranks write the bytes of one where sums are in order", "[ranks]") {
    SECTION("two") { rank_scene().check_same_bytes(2); }
    SECTION("more than there are chunks") { rank_scene().check_same_bytes(5); }
    SECTION("with drift, half of it of states") {
        rank_scene s;
        s.options.config.settings.correct_drift = true;
        s.check_same_bytes(3);
    }
    SECTION("with little memory") {
        rank_scene s;
        s.options.memory = std::uint64_t{4} << 20;
        s.check_same_bytes(2);
    }
    SECTION("experts, of which one has no tokens") {
        rank_scene s({.blocks = 1, .experts = true});
        s.check_same_bytes(3);
    }
}

TEST_CASE("several ranks that add at once come to almost the same codes", "[ranks]") {
    rank_scene s;
    s.options.sums_in_order = false;
    counter alone;
    s.run(alone, s.temporary.path() / "alone");
    std::vector<counter> watching(3);
    CHECK(s.run_on(watching, s.out) == std::vector<std::string>(3, "nothing was thrown"));
    const auto ours = model::read_quant_log(s.out / model::quant_log_name);
    const auto expected = model::read_quant_log(s.temporary.path() / "alone" / model::quant_log_name);
    REQUIRE(ours.size() == expected.size());
    for (std::size_t i = 0; i < ours.size(); ++i) {
        CHECK(ours[i].samples == 25 * 256);
        // Rounding to nearest needs no inputs, and the inputs of the first modules are the same.
        if (i < 3) CHECK(ours[i].rtn_error == Approx(expected[i].rtn_error).epsilon(1e-5));
        if (i < 3) CHECK(ours[i].error == Approx(expected[i].error).epsilon(1e-3));
        CHECK(ours[i].rtn_error == Approx(expected[i].rtn_error).epsilon(0.05));
    }
}

TEST_CASE("scales of inputs are not divided among ranks", "[ranks]") {
    rank_scene s;
    s.options.config.settings.smooth = 0.5;
    std::vector<counter> watching(2);
    const auto said = s.run_on(watching, s.out);
    CHECK(mentions(said[0], "found by one process"));
    CHECK(mentions(said[1], "one process"));
}

TEST_CASE("a rank that stops ends the work of all, and the next run goes on with it", "[ranks]") {
    rank_scene s;
    counter alone;
    s.run(alone, s.temporary.path() / "alone");
    std::vector<counter> watching(3);
    watching[1].stop_after = modules_a_block + 2;
    const auto said = s.run_on(watching, s.out);
    CHECK(said[0] == "rank 1 has stopped: enough");
    CHECK(said[1] == "enough");
    CHECK(said[2] == said[0]);
    CHECK_FALSE(fs::exists(s.out));
    std::vector<counter> rest(2);
    CHECK(s.run_on(rest, s.out) == std::vector<std::string>(2, "nothing was thrown"));
    CHECK(rest[0].resumed == 1);
    CHECK(rest[1].resumed == 1);
    CHECK(contents(s.out) == contents(s.temporary.path() / "alone"));
}

TEST_CASE("ranks with other settings or texts are refused", "[ranks]") {
    rank_scene s;
    gptq::thread_ranks all(2);
    std::vector<std::string> said(2);
    gptq_test::on_ranks(2, [&](std::size_t rank) {
        auto ranks = all.of(rank);
        model::quantize_model_options mine = s.options;
        mine.ranks = ranks;
        mine.config.settings.bits = rank == 0 ? 4 : 3;
        counter watching;
        said[rank] =
            message_of([&] { model::quantize_model(io::model_folder(s.source), s.out, s.windows, mine, watching); });
    });
    for (const std::string& message : said) CHECK(mentions(message, "rank 1", "other settings"));
    CHECK_FALSE(fs::exists(s.partial));
}
