// Drawing of the progress bar.
#include "progress.hpp"

#include <unistd.h>

#include <algorithm>
#include <cstdio>

namespace program {

std::string duration_string(double seconds) {
    const auto total = static_cast<long>(std::max(0.0, seconds) + 0.5);
    char text[40];
    if (total >= 3600)
        std::snprintf(text, sizeof text, "%ld:%02ld:%02ld", total / 3600, total / 60 % 60, total % 60);
    else
        std::snprintf(text, sizeof text, "%ld:%02ld", total / 60, total % 60);
    return text;
}

progress::progress() : terminal_(isatty(STDERR_FILENO) == 1) {}

progress::~progress() { erase(); }

void progress::update(double fraction, const std::string& doing) {
    const auto now = clock::now();
    if (!terminal_ || now - last_drawn_ < std::chrono::milliseconds(100)) return;
    last_drawn_ = now;
    fraction = std::clamp(fraction, 0.0, 1.0);
    constexpr std::size_t width = 30;
    const auto full = static_cast<std::size_t>(fraction * static_cast<double>(width));
    const double elapsed = std::chrono::duration<double>(now - start_).count();
    // The first moments say little about the rest.
    const std::string left =
        fraction > 0.01 ? duration_string(elapsed * (1.0 - fraction) / fraction) + " left" : std::string("        ");
    std::fprintf(stderr, "\r\033[K[%s%s] %3.0f %%  %s  %s", std::string(full, '#').c_str(),
                 std::string(width - full, '.').c_str(), 100.0 * fraction, left.c_str(), doing.c_str());
    std::fflush(stderr);
    drawn_ = true;
}

void progress::step(const std::string& line) {
    if (!terminal_) std::fprintf(stderr, "%s\n", line.c_str());
}

void progress::note(const std::string& line) {
    erase();
    std::fprintf(stderr, "%s\n", line.c_str());
}

void progress::erase() {
    if (drawn_) std::fputs("\r\033[K", stderr);
    drawn_ = false;
}

}  // namespace program
