// Files of the operating system (POSIX): read-only mappings, and writing with every error reported.
#pragma once

#include <cerrno>
#include <cstddef>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <gptq/error.hpp>

namespace gptq::io {

namespace detail {

/// io_error of the form "PATH: cannot WHAT: REASON"; `code` is an errno.
[[noreturn]] inline void throw_io_error(const std::filesystem::path& path, const std::string& what, int code) {
    throw io_error(path.string() + ": cannot " + what + ": " + std::generic_category().message(code));
}

/// True for the name of a file directly in a folder: no separators, not "." or "..", not empty.
inline bool is_plain_file_name(std::string_view name) {
    return !name.empty() && name != "." && name != ".." &&
           name.find_first_of(std::string_view("/\\\0", 3)) == std::string_view::npos;
}

/// A file descriptor that is closed when it goes out of scope.
class descriptor {
 public:
    descriptor() = default;
    explicit descriptor(int fd) : fd_(fd) {}
    descriptor(descriptor&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
    descriptor& operator=(descriptor&& other) noexcept {
        std::swap(fd_, other.fd_);
        return *this;
    }
    ~descriptor() {
        if (fd_ >= 0) ::close(fd_);
    }

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
    explicit mapped_file(const std::filesystem::path& path) {
        const detail::descriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
        if (file.get() < 0) detail::throw_io_error(path, "open", errno);
        struct stat status {};
        if (::fstat(file.get(), &status) != 0) detail::throw_io_error(path, "read", errno);
        if (S_ISDIR(status.st_mode)) detail::throw_io_error(path, "read", EISDIR);
        if (!S_ISREG(status.st_mode)) throw io_error(path.string() + ": cannot map: not a regular file");
        size_ = static_cast<std::size_t>(status.st_size);
        if (size_ == 0) return;  // there is nothing to map, and mmap refuses to
        void* address = ::mmap(nullptr, size_, PROT_READ, MAP_PRIVATE, file.get(), 0);
        if (address == MAP_FAILED) detail::throw_io_error(path, "map", errno);
        data_ = static_cast<const std::byte*>(address);
    }
    mapped_file(mapped_file&& other) noexcept
        : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}
    mapped_file& operator=(mapped_file&& other) noexcept {
        std::swap(data_, other.data_);
        std::swap(size_, other.size_);
        return *this;
    }
    ~mapped_file() {
        if (data_ != nullptr) ::munmap(const_cast<std::byte*>(data_), size_);
    }

    std::span<const std::byte> bytes() const { return {data_, size_}; }

 private:
    const std::byte* data_ = nullptr;
    std::size_t size_ = 0;
};

/// The content of a text file of at most `max_bytes`. Throws io_error if it cannot be read, format_error if it is
/// larger.
inline std::string read_text_file(const std::filesystem::path& path, std::size_t max_bytes) {
    const mapped_file file(path);
    const auto bytes = file.bytes();
    if (bytes.size() > max_bytes)
        throw format_error(path.string() + ": has " + std::to_string(bytes.size()) + " bytes; at most " +
                           std::to_string(max_bytes) + " are read from a file of this kind");
    return std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size());
}

/// A new file that is being written. Every failure is an io_error with the path and the system's reason, a full disk
/// included.
class output_file {
 public:
    /// Creates the file; throws if it exists.
    explicit output_file(std::filesystem::path path)
        : path_(std::move(path)), file_(::open(path_.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0666)) {
        if (file_.get() < 0) detail::throw_io_error(path_, "create", errno);
    }

    const std::filesystem::path& path() const { return path_; }

    /// Writes all of `bytes` at `offset`.
    void write_at(std::size_t offset, std::span<const std::byte> bytes) {
        while (!bytes.empty()) {
            const ssize_t done = ::pwrite(file_.get(), bytes.data(), bytes.size(), static_cast<off_t>(offset));
            if (done < 0 && errno == EINTR) continue;
            if (done < 0) detail::throw_io_error(path_, "write", errno);
            if (done == 0) detail::throw_io_error(path_, "write", ENOSPC);
            bytes = bytes.subspan(static_cast<std::size_t>(done));
            offset += static_cast<std::size_t>(done);
        }
    }

    /// Fills `bytes` from what was written before at `offset`.
    void read_at(std::size_t offset, std::span<std::byte> bytes) const {
        while (!bytes.empty()) {
            const ssize_t done = ::pread(file_.get(), bytes.data(), bytes.size(), static_cast<off_t>(offset));
            if (done < 0 && errno == EINTR) continue;
            if (done <= 0) detail::throw_io_error(path_, "read back", done < 0 ? errno : EIO);
            bytes = bytes.subspan(static_cast<std::size_t>(done));
            offset += static_cast<std::size_t>(done);
        }
    }

    /// Cuts the file to `size` bytes.
    void truncate(std::size_t size) {
        if (::ftruncate(file_.get(), static_cast<off_t>(size)) != 0) detail::throw_io_error(path_, "shorten", errno);
    }

    /// Waits until the content is on the disk and closes the file.
    void close() {
        if (::fsync(file_.get()) != 0) detail::throw_io_error(path_, "write to the disk", errno);
        if (::close(file_.release()) != 0) detail::throw_io_error(path_, "close", errno);
    }

 private:
    std::filesystem::path path_;
    detail::descriptor file_;
};

/// The bytes of a string, as the writers take them.
inline std::span<const std::byte> bytes_of(std::string_view text) {
    return {reinterpret_cast<const std::byte*>(text.data()), text.size()};
}

}  // namespace gptq::io
