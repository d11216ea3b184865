#include "gnuplot.hpp"

#include <array>
#include <cstddef>
#include <cstdio>
#include <memory>

#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <gptq/io/file.hpp>

namespace program {
namespace {

using file_pointer = std::unique_ptr<std::FILE, int (*)(std::FILE*)>;

/// A file without a name that holds the text.
file_pointer file_of(const std::string& text) {
    file_pointer file(std::tmpfile(), &std::fclose);
    if (!file || std::fwrite(text.data(), 1, text.size(), file.get()) != text.size()) return {nullptr, &std::fclose};
    std::rewind(file.get());
    return file;
}

/// All that comes until the other end is closed.
std::string read_all(int pipe) {
    std::string text;
    std::array<char, 1 << 14> some{};
    for (ssize_t count = 0; (count = ::read(pipe, some.data(), some.size())) > 0;)
        text.append(some.data(), static_cast<std::size_t>(count));
    return text;
}

}  // namespace

std::optional<std::string> run_gnuplot(const std::string& script) {
    const file_pointer input = file_of(script);
    int ends[2];
    if (!input || ::pipe2(ends, O_CLOEXEC) != 0) return std::nullopt;
    const gptq::io::detail::descriptor from(ends[0]);
    gptq::io::detail::descriptor to(ends[1]);

    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, ::fileno(input.get()), STDIN_FILENO);
    posix_spawn_file_actions_adddup2(&actions, to.get(), STDOUT_FILENO);
    posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, "/dev/null", O_WRONLY, 0);
    char name[] = "gnuplot";
    char* arguments[] = {name, nullptr};
    pid_t child = 0;
    const int problem = ::posix_spawnp(&child, name, &actions, nullptr, arguments, environ);
    posix_spawn_file_actions_destroy(&actions);
    to = {};
    if (problem != 0) return std::nullopt;
    const std::string output = read_all(from.get());
    int status = 0;
    ::waitpid(child, &status, 0);
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0 || output.empty()) return std::nullopt;
    return output;
}

}  // namespace program
