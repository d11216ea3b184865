// Files of the operating system (POSIX): reading and writing with every error reported.
#pragma once

#include <cstddef>
#include <ctime>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <gptq/error.hpp>

namespace gptq::io {

namespace detail {

/// io_error of the form "PATH: cannot WHAT: REASON"; `code` is an errno.
[[noreturn]] void throw_io_error(const std::filesystem::path& path, const std::string& what, int code);

/// Fills `out` from `offset` of the descriptor on. Throws io_error that says "cannot WHAT"; EIO where the file ends.
void read_fully(int file, std::size_t offset, std::span<std::byte> out, const std::filesystem::path& path,
                const char* what);

/// Where the file leads to, if it is a link out of the folder that it lies in; else nothing. A link into the folder
/// "blobs" of the Hub's cache, whose snapshots are folders of such links, counts as one within the folder; so does one
/// to a file that is not there.
std::filesystem::path target_outside(const std::filesystem::path& path);

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

/// What bytes can be read from, by any number of threads: a file, or numbers that are made when they are asked for.
class byte_source {
 public:
    byte_source() = default;
    byte_source(const byte_source&) = delete;
    byte_source& operator=(const byte_source&) = delete;
    virtual ~byte_source() = default;

    /// Fills `out` with the bytes from `offset` on, all of which the source has.
    virtual void read_at(std::size_t offset, std::span<std::byte> out) const = 0;
};

/// A regular file that is open for reading. A link that leads out of its folder is not followed: the author of a
/// model's folder must not choose which other files of this machine are read, or copied beside a model that is
/// published later. The file is read piece by piece and never mapped, because a mapped file that becomes shorter ends
/// the program by a signal. Any number of threads may read from it.
class input_file : public byte_source {
 public:
    /// Throws io_error, with the path and the system's reason, if the file cannot be opened, is not a regular file, or
    /// is a link out of its folder. A pipe does not make it wait.
    explicit input_file(std::filesystem::path path);

    const std::filesystem::path& path() const { return path_; }

    /// Bytes when it was opened.
    std::size_t size() const { return size_; }

    /// Fills `out` with the bytes from `offset` on, which end at size() or before. Throws io_error if they cannot be
    /// read, or if the file was written to or cut since it was opened: what was read may then be of both versions.
    void read_at(std::size_t offset, std::span<std::byte> out) const override;

 private:
    std::filesystem::path path_;
    detail::descriptor file_;
    std::size_t size_ = 0;
    timespec modified_{};
};

/// A part of a file, or of another source, that is read when somebody asks for it. Keeps the file open.
class file_bytes {
 public:
    file_bytes() = default;

    /// `size` bytes from `begin` on, all of which the file has.
    file_bytes(std::shared_ptr<const byte_source> source, std::size_t begin, std::size_t size)
        : source_(std::move(source)), begin_(begin), size_(size) {}

    /// Where in the file it begins.
    std::size_t begin() const { return begin_; }
    std::size_t size() const { return size_; }
    bool empty() const { return size_ == 0; }

    /// `size` bytes of it from `offset` on, which it has.
    file_bytes subspan(std::size_t offset, std::size_t size) const { return {source_, begin_ + offset, size}; }

    /// Fills `out`, of size() bytes. Throws as input_file::read_at.
    void read(std::span<std::byte> out) const;

    /// All bytes. Throws likewise.
    std::vector<std::byte> read() const;

 private:
    std::shared_ptr<const byte_source> source_;
    std::size_t begin_ = 0;
    std::size_t size_ = 0;
};

/// The content of a regular file of at most `max_bytes`. Throws as input_file, and format_error if it is larger.
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

    /// Writes all of `source`, from the start of this file on, without memory for all of it.
    void copy_from(const input_file& source);

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
