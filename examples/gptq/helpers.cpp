#include "helpers.hpp"

#include <cerrno>
#include <fstream>
#include <iterator>
#include <string>

#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <gptq/io/file.hpp>

namespace program {
namespace {

/// The words of the command line of this process.
std::vector<std::string> own_arguments() {
    std::ifstream file("/proc/self/cmdline", std::ios::binary);
    const std::string all((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
    std::vector<std::string> words;
    for (std::size_t at = 0; at < all.size(); at = all.find('\0', at) + 1) words.emplace_back(all.c_str() + at);
    return words;
}

/// After fork(), where little is allowed before exec.
[[noreturn]] void become_worker(char** arguments, pid_t parent) {
    ::prctl(PR_SET_PDEATHSIG, SIGTERM);
    if (::getppid() != parent) ::_exit(1);
    const int nowhere = ::open("/dev/null", O_RDWR);
    for (const int stream : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) ::dup2(nowhere, stream);
    ::execv("/proc/self/exe", arguments);
    ::_exit(127);
}

}  // namespace

helpers::helpers(std::size_t count) {
    if (count == 0) return;
    std::vector<std::string> words = own_arguments();
    words.emplace_back("--worker");
    std::vector<char*> arguments;
    for (std::string& word : words) arguments.push_back(word.data());
    arguments.push_back(nullptr);
    const pid_t parent = ::getpid();
    while (children_.size() < count) {
        const pid_t child = ::fork();
        if (child < 0) gptq::io::detail::throw_io_error("--jobs", "start a process", errno);
        if (child == 0) become_worker(arguments.data(), parent);
        children_.push_back(child);
    }
}

helpers::~helpers() {
    for (const pid_t child : children_) ::kill(child, SIGTERM);
    wait();
}

void helpers::wait() {
    for (const pid_t child : children_) ::waitpid(child, nullptr, 0);
    children_.clear();
}

}  // namespace program
