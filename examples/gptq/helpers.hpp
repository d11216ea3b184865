// More processes of this program beside the one at hand.
#pragma once

#include <cstddef>
#include <vector>

#include <sys/types.h>

namespace program {

/// Copies of this process with the same command line and `--worker`, which say nothing. They end with it in whatever
/// way it ends.
class helpers {
 public:
    /// Starts `count` of them. Throws io_error where the system does not allow it.
    explicit helpers(std::size_t count);
    helpers(const helpers&) = delete;
    helpers& operator=(const helpers&) = delete;

    /// Asks those that are left to stop, and waits for them.
    ~helpers();

    /// Waits until all of them have ended by themselves.
    void wait();

 private:
    std::vector<pid_t> children_;
};

}  // namespace program
