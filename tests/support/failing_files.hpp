// Calls of the operating system that fail on demand: these functions take the place of the C library's in the test that
// includes this header, once. What does not fail goes to the kernel.
#pragma once

#include <cerrno>
#include <cstdarg>
#include <cstddef>
#include <limits>
#include <string_view>

#include <fcntl.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>

namespace gptq_test {

/// Which calls fail while somebody asks for it.
struct failing_files {
    static constexpr std::size_t none = std::numeric_limits<std::size_t>::max();

    std::string_view below;    ///< only files whose path has this part can fail to open; empty: nothing fails or counts
    std::size_t first = none;  ///< this call fails, counted from 0
    bool all_later = false;    ///< and so do all after it
    std::size_t calls = 0;     ///< so far
    const char* first_failed = "";  ///< the name of the first call that failed

    /// A call that writes, or opens something to write, begins.
    bool next_fails(const char* name) {
        if (below.empty()) return false;
        const std::size_t index = calls++;
        if (index == first) first_failed = name;
        return index == first || (all_later && index > first);
    }
};
inline failing_files files_that_fail;

/// -1 with EIO where the call at hand fails, and what the kernel says otherwise.
template <class Call>
auto fail_or(const char* name, const Call& call) -> decltype(call()) {
    if (!files_that_fail.next_fails(name)) return call();
    errno = EIO;
    return -1;
}

}  // namespace gptq_test

extern "C" {

int open(const char* path, int flags, ...) {
    std::va_list rest;
    va_start(rest, flags);
    const auto mode = (flags & O_CREAT) != 0 ? va_arg(rest, mode_t) : mode_t{0};
    va_end(rest);
    const auto call = [&] { return static_cast<int>(::syscall(SYS_openat, AT_FDCWD, path, flags, mode)); };
    const std::string_view below = gptq_test::files_that_fail.below;
    const bool counts = !below.empty() && std::string_view(path).find(below) != std::string_view::npos;
    return counts ? gptq_test::fail_or("open", call) : call();
}

/// A disk that breaks within a write has some of it.
ssize_t pwrite(int file, const void* bytes, std::size_t count, off_t offset) {
    const bool fails = gptq_test::files_that_fail.next_fails("pwrite");
    const auto written = ::syscall(SYS_pwrite64, file, bytes, fails ? count / 2 : count, offset);
    if (!fails) return written;
    errno = EIO;
    return -1;
}

int ftruncate(int file, off_t size) noexcept {
    return gptq_test::fail_or("ftruncate", [&] { return static_cast<int>(::syscall(SYS_ftruncate, file, size)); });
}

int fsync(int file) {
    return gptq_test::fail_or("fsync", [&] { return static_cast<int>(::syscall(SYS_fsync, file)); });
}

int mkdir(const char* path, mode_t mode) noexcept {
    return gptq_test::fail_or("mkdirat",
                              [&] { return static_cast<int>(::syscall(SYS_mkdirat, AT_FDCWD, path, mode)); });
}

int rename(const char* from, const char* to) noexcept {
    return gptq_test::fail_or(
        "renameat2", [&] { return static_cast<int>(::syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, 0)); });
}

int renameat2(int from_folder, const char* from, int to_folder, const char* to, unsigned flags) noexcept {
    return gptq_test::fail_or("renameat2", [&] {
        return static_cast<int>(::syscall(SYS_renameat2, from_folder, from, to_folder, to, flags));
    });
}
}
