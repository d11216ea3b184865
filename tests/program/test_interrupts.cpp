// A program that is asked to end ends, and one that could not begin says so.
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <string>
#include <thread>
#include <vector>

#include "program/run_program.hpp"
#include "program/tiny_model.hpp"
#include "support/catch.hpp"
#include "support/message.hpp"
#include "support/sanitized.hpp"

namespace {

using namespace gptq_test;
namespace fs = std::filesystem;

/// A model, a text, and a folder that every user may look into.
struct scene {
    explicit scene(const tiny_model& sizes = {}) {
        write_tiny_model(model, sizes);
        write_file(text, some_text(100'000));
        fs::permissions(folder.path(), fs::perms::others_read | fs::perms::others_exec, fs::perm_options::add);
    }
    temp_dir folder;
    std::string model = (folder.path() / "model").string(), text = (folder.path() / "text.txt").string();
};

/// Waits for its end, in seconds; `status` as in run_result.
double wait_for(pid_t child, int& status) {
    const auto begin = std::chrono::steady_clock::now();
    int ended = 0;
    ::waitpid(child, &ended, 0);
    status = WIFEXITED(ended) ? WEXITSTATUS(ended) : 128 + WTERMSIG(ended);
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

/// Whether the process has that signal among those of a line of /proc/PID/status.
bool has_signal(pid_t process, const std::string& line, int number) {
    std::ifstream status("/proc/" + std::to_string(process) + "/status");
    for (std::string name, value; status >> name; std::getline(status, value))
        if (name == line + ":" && status >> value) return (std::stoull(value, nullptr, 16) >> (number - 1) & 1u) != 0;
    return false;
}

/// Whether the process is the program by now, and catches that signal.
bool catches(pid_t process, int number) {
    std::error_code gone;
    const auto runs = fs::read_symlink("/proc/" + std::to_string(process) + "/exe", gone);
    return runs == fs::canonical(program_path().value()) && has_signal(process, "SigCgt", number);
}

/// Waits, at most a minute, until `holds`.
template <class Condition>
void wait_until(const Condition& holds) {
    for (int i = 0; i < 6000 && !holds(); ++i) std::this_thread::sleep_for(std::chrono::milliseconds(10));
}

/// Sizes with which one pass over 4000 tokens takes more than a minute, and one block of it a fraction of a second.
constexpr tiny_model slow{.hidden = 64, .intermediate = 128, .blocks = 300};

}  // namespace

TEST_CASE("bench and eval stop within a pass over the tokens", "[runs]") {
    if (skipped()) return;
    const scene s(slow);
    const std::vector<std::vector<std::string>> commands = {
        {"bench", s.model, "--prompt", "4000", "-n", "1", "--threads", "1"},
        {"eval", s.model, "--text", s.text, "--seqlen", "4000", "--threads", "1"}};
    for (const auto& command : commands) {
        CAPTURE(command.front());
        const pid_t child = start_program(command, s.folder.path(), {.seconds = 120});
        wait_until([child] { return catches(child, SIGINT); });
        std::this_thread::sleep_for(std::chrono::seconds(4));
        ::kill(child, SIGINT);
        int status = 0;
        CHECK(wait_for(child, status) < 30.0);
        CHECK(status == 1);
        CHECK(mentions(read_file(s.folder.path() / "err"), "interrupted"));
    }
}

TEST_CASE("a second signal ends the program at once, whichever came first", "[runs]") {
    if (skipped()) return;
    const scene s(slow);
    for (const auto& signals : {std::pair(SIGINT, SIGINT), std::pair(SIGINT, SIGTERM), std::pair(SIGTERM, SIGINT)}) {
        const int first = signals.first, second = signals.second;
        const pid_t child =
            start_program({"eval", s.model, "--text", s.text, "--seqlen", "4000"}, s.folder.path(), {.seconds = 120});
        wait_until([&] { return catches(child, first) && catches(child, second); });
        ::kill(child, first);
        // Of two signals that wait together, the one of the lower number is handled first.
        wait_until([&] { return !has_signal(child, "ShdPnd", first); });
        std::this_thread::sleep_for(std::chrono::milliseconds(10));
        ::kill(child, second);
        int status = 0;
        CHECK(wait_for(child, status) < 20.0);
        // The first of the two may have ended it already.
        CHECK((status == 128 + second || status == 1));
    }
}

TEST_CASE("too few processes or too little address space are an error before the work, and no hang") {
    if (skipped()) return;
#ifdef GPTQ_TEST_SANITIZED
    WARN("skipped: the sanitizer itself needs more address space");
#else
    const scene s;
    const std::vector<std::string> bench{"bench", s.model, "--prompt", "4", "-n", "1", "--threads", "4"};
    const run_result narrow = run_program(bench, {.address_space = 200'000 * 1024, .seconds = 60});
    INFO(narrow.err);
    CHECK(narrow.status == 1);
    CHECK(mentions(narrow.err, "address space"));
    CHECK(run_program({"inspect", s.model}, {.address_space = 200'000 * 1024, .seconds = 60}).status == 0);

    if (::getuid() != 0) {
        WARN("skipped: only root can run the program as a user without other processes");
        return;
    }
    const run_result few = run_program(bench, {.processes = 3, .seconds = 60});
    INFO(few.err);
    CHECK(few.status == 1);
    CHECK(mentions(few.err, "cannot start 4 threads"));
#endif
}
