// Files of the operating system (POSIX): read-only mappings, and writing with every error reported.
#pragma once

#include <cstddef>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include <gptq/error.hpp>

namespace gptq::io {

namespace detail {

/// io_error of the form "PATH: cannot WHAT: REASON"; `code` is an errno.
[[noreturn]] void throw_io_error(const std::filesystem::path& path, const std::string& what, int code);

/// True for the name of a file directly in a folder: no separators, not "." or "..", not empty.
bool is_plain_file_name(std::string_view name);

/// A file descriptor that is closed when it goes out of scope.
class descriptor {
 public:
    descriptor() = default;
    explicit descriptor(int fd) : fd_(fd) {}
    descriptor(descriptor&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
    descriptor& operator=(descriptor&& other) noexcept;
    ~descriptor();

    int get() const { return fd_; }
    int release() { return std::exchange(fd_, -1); }

 private:
    int fd_ = -1;
};

}  // namespace detail

/// A whole file mapped read-only into memory: its pages are read when touched and can be dropped again, so a file may
/// be larger than the memory. A file that shrinks while it is mapped raises SIGBUS, as for every program that maps it.
class mapped_file {
 public:
    /// Throws io_error, with the path and the system's reason, if the file cannot be opened or is not a regular file.
    explicit mapped_file(const std::filesystem::path& path);
    mapped_file(mapped_file&& other) noexcept
        : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}
    mapped_file& operator=(mapped_file&& other) noexcept;
    ~mapped_file();

    std::span<const std::byte> bytes() const { return {data_, size_}; }

 private:
    const std::byte* data_ = nullptr;
    std::size_t size_ = 0;
};

/// The content of a text file of at most `max_bytes`. Throws io_error if it cannot be read, format_error if it is
/// larger.
std::string read_text_file(const std::filesystem::path& path, std::size_t max_bytes);

/// A new file that is being written. Every failure is an io_error with the path and the system's reason, a full disk
/// included.
class output_file {
 public:
    /// Creates the file; throws if it exists.
    explicit output_file(std::filesystem::path path);

    const std::filesystem::path& path() const { return path_; }

    /// Writes all of `bytes` at `offset`.
    void write_at(std::size_t offset, std::span<const std::byte> bytes);

    /// Fills `bytes` from what was written before at `offset`.
    void read_at(std::size_t offset, std::span<std::byte> bytes) const;

    /// Cuts the file to `size` bytes.
    void truncate(std::size_t size);

    /// Waits until the content is on the disk and closes the file.
    void close();

 private:
    std::filesystem::path path_;
    detail::descriptor file_;
};

/// The bytes of a string, as the writers take them.
std::span<const std::byte> bytes_of(std::string_view text);

}  // namespace gptq::io

#ifndef GPTQ_COMPILED
#include <gptq/io/impl/file.hpp>
#endif
