// Progress on standard error: a bar with the time left on a terminal, a plain line a step otherwise.
#pragma once

#include <chrono>
#include <string>

namespace program {

class progress {
 public:
    progress();
    /// Takes the bar off the terminal again.
    ~progress();
    progress(const progress&) = delete;
    progress& operator=(const progress&) = delete;

    /// `fraction` (0 to 1) of the work is done; `doing` says what comes next. Terminal only, redrawn at most ten times
    /// a second.
    void update(double fraction, const std::string& doing);

    /// A step is done; `line` describes it. Anywhere but on a terminal.
    void step(const std::string& line);

    /// A line that is shown wherever standard error goes.
    void note(const std::string& line);

 private:
    using clock = std::chrono::steady_clock;
    void erase();

    bool terminal_;
    bool drawn_ = false;
    clock::time_point start_ = clock::now();
    clock::time_point last_drawn_{};
};

/// "1:02:03", "2:03" or "0:03".
std::string duration_string(double seconds);

}  // namespace program
