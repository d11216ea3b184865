#include "program/run_program.hpp"

#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "support/catch.hpp"
#include "support/files.hpp"
#include "support/temp_dir.hpp"

namespace gptq_test {
namespace {

/// A user that owns nothing and runs nothing.
constexpr uid_t nobody = 65534;

/// Mounts a small disk that only this process and its children see.
bool mount_small_disk(const std::filesystem::path& folder, std::size_t bytes) {
    if (::unshare(CLONE_NEWNS) != 0 && ::unshare(CLONE_NEWUSER | CLONE_NEWNS) != 0) return false;
    if (::mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0) return false;
    const std::string size = "size=" + std::to_string(bytes);
    return ::mount("tmpfs", folder.c_str(), "tmpfs", 0, size.c_str()) == 0;
}

[[noreturn]] void become(const std::string& program, const std::vector<std::string>& arguments,
                         const std::filesystem::path& folder, const run_limits& limits) {
    const int out = ::open((folder / "out").c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600);
    const int err = ::open((folder / "err").c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600);
    ::dup2(out, STDOUT_FILENO);
    ::dup2(err, STDERR_FILENO);
    if (limits.file_bytes) {
        const rlimit limit{*limits.file_bytes, *limits.file_bytes};
        ::setrlimit(RLIMIT_FSIZE, &limit);
    }
    ::alarm(limits.seconds);
    if (limits.address_space) {
        const rlimit limit{*limits.address_space, *limits.address_space};
        ::setrlimit(RLIMIT_AS, &limit);
    }
    if (limits.processes) {
        const rlimit limit{*limits.processes, *limits.processes};
        ::setrlimit(RLIMIT_NPROC, &limit);
        if (::getuid() == 0 && ::setuid(nobody) != 0) ::_exit(127);
    }
    if (limits.small_disk && !mount_small_disk(limits.small_disk->first, limits.small_disk->second))
        ::_exit(no_small_disk);
    std::vector<char*> argv{const_cast<char*>(program.c_str())};
    for (const std::string& argument : arguments) argv.push_back(const_cast<char*>(argument.c_str()));
    argv.push_back(nullptr);
    ::execv(program.c_str(), argv.data());
    ::_exit(127);
}

/// Waits at most two minutes for the text, or for the end of the process.
void send_signal(pid_t child, const std::filesystem::path& err, const std::pair<std::string, int>& when) {
    for (int i = 0; i < 12000; ++i) {
        siginfo_t info{};
        ::waitid(P_PID, static_cast<id_t>(child), &info, WEXITED | WNOHANG | WNOWAIT);
        if (info.si_pid == child) return;
        if (std::filesystem::exists(err) && read_file(err).find(when.first) != std::string::npos) break;
        std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    ::kill(child, when.second);
}

}  // namespace

std::optional<std::string> program_path() {
    const char* path = std::getenv("GPTQ_BIN");
    if (path == nullptr || *path == '\0') return std::nullopt;
    return std::string(path);
}

bool skipped() {
    if (program_path()) return false;
    WARN("skipped: the program was not built (GPTQ_BIN is not set)");
    return true;
}

pid_t start_program(const std::vector<std::string>& arguments, const std::filesystem::path& folder,
                    const run_limits& limits) {
    const std::string program = program_path().value();
    const pid_t child = ::fork();
    if (child == 0) become(program, arguments, folder, limits);
    return child;
}

run_result run_program(const std::vector<std::string>& arguments, const run_limits& limits) {
    const temp_dir folder;
    const pid_t child = start_program(arguments, folder.path(), limits);
    if (limits.signal_after) send_signal(child, folder.path() / "err", *limits.signal_after);
    int status = 0;
    ::waitpid(child, &status, 0);
    return {WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status), read_file(folder.path() / "out"),
            read_file(folder.path() / "err")};
}

std::vector<std::string> with_defaults(std::vector<std::string> arguments, const std::vector<std::string>& defaults) {
    for (std::size_t i = 0; i + 1 < defaults.size(); i += 2) {
        if (std::find(arguments.begin(), arguments.end(), defaults[i]) != arguments.end()) continue;
        arguments.insert(arguments.end(), {defaults[i], defaults[i + 1]});
    }
    return arguments;
}

std::vector<std::string> lines_of(const std::string& text) {
    std::vector<std::string> lines;
    std::string line;
    for (const char c : text) {
        if (c != '\n')
            line += c;
        else
            lines.push_back(std::exchange(line, {}));
    }
    if (!line.empty()) lines.push_back(line);
    return lines;
}

std::vector<std::string> names_in(const std::filesystem::path& folder) {
    std::vector<std::string> names;
    for (const auto& entry : std::filesystem::directory_iterator(folder)) names.push_back(entry.path().filename());
    std::sort(names.begin(), names.end());
    return names;
}

}  // namespace gptq_test
