// The signal handlers behind interrupt.hpp (POSIX).
#include "interrupt.hpp"

#include <atomic>
#include <csignal>

#include <unistd.h>

#include <gptq/error.hpp>

namespace program {
namespace {

std::atomic<bool> interrupted{false};
static_assert(std::atomic<bool>::is_always_lock_free, "a signal handler may only touch lock-free atomics");

extern "C" void on_signal(int number) {
    // Whoever asks twice, and by whichever signal, does not want to wait for the next step, which may never come.
    if (interrupted.exchange(true)) _exit(128 + number);
}

}  // namespace

void catch_interrupts() {
    struct sigaction action = {};
    action.sa_handler = on_signal;
    sigaction(SIGINT, &action, nullptr);
    sigaction(SIGTERM, &action, nullptr);
    struct sigaction hangup = {};
    // nohup has it ignored, and means it.
    if (sigaction(SIGHUP, nullptr, &hangup) == 0 && hangup.sa_handler != SIG_IGN) sigaction(SIGHUP, &action, nullptr);
    // A file that outgrows the limit of the shell is then an error of the write like any other.
    std::signal(SIGXFSZ, SIG_IGN);
}

void throw_if_interrupted() {
    if (interrupted.load()) throw gptq::cancelled("interrupted");
}

}  // namespace program
