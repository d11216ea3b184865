// The bodies of <gptq/io/file.hpp>.
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

#include <gptq/compiled.hpp>
#include <gptq/error.hpp>
#include <gptq/io/file.hpp>

namespace gptq::io {
namespace detail {

GPTQ_INLINE void throw_io_error(const std::filesystem::path& path, const std::string& what, int code) {
    throw io_error(path.string() + ": cannot " + what + ": " + std::generic_category().message(code));
}

GPTQ_INLINE bool is_plain_file_name(std::string_view name) {
    return !name.empty() && name != "." && name != ".." &&
           name.find_first_of(std::string_view("/\\\0", 3)) == std::string_view::npos;
}

GPTQ_INLINE descriptor& descriptor::operator=(descriptor&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
}

GPTQ_INLINE descriptor::~descriptor() {
    if (fd_ >= 0) ::close(fd_);
}

}  // namespace detail
}  // namespace gptq::io

namespace gptq::io {

GPTQ_INLINE mapped_file::mapped_file(const std::filesystem::path& path) {
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

GPTQ_INLINE mapped_file& mapped_file::operator=(mapped_file&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    return *this;
}

GPTQ_INLINE mapped_file::~mapped_file() {
    if (data_ != nullptr) ::munmap(const_cast<std::byte*>(data_), size_);
}

GPTQ_INLINE std::string read_text_file(const std::filesystem::path& path, std::size_t max_bytes) {
    const mapped_file file(path);
    const auto bytes = file.bytes();
    if (bytes.size() > max_bytes)
        throw format_error(path.string() + ": has " + std::to_string(bytes.size()) + " bytes; at most " +
                           std::to_string(max_bytes) + " are read from a file of this kind");
    return std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size());
}

GPTQ_INLINE output_file::output_file(std::filesystem::path path)
    : path_(std::move(path)), file_(::open(path_.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0666)) {
    if (file_.get() < 0) detail::throw_io_error(path_, "create", errno);
}

GPTQ_INLINE void output_file::write_at(std::size_t offset, std::span<const std::byte> bytes) {
    while (!bytes.empty()) {
        const ssize_t done = ::pwrite(file_.get(), bytes.data(), bytes.size(), static_cast<off_t>(offset));
        if (done < 0 && errno == EINTR) continue;
        if (done < 0) detail::throw_io_error(path_, "write", errno);
        if (done == 0) detail::throw_io_error(path_, "write", ENOSPC);
        bytes = bytes.subspan(static_cast<std::size_t>(done));
        offset += static_cast<std::size_t>(done);
    }
}

GPTQ_INLINE void output_file::read_at(std::size_t offset, std::span<std::byte> bytes) const {
    while (!bytes.empty()) {
        const ssize_t done = ::pread(file_.get(), bytes.data(), bytes.size(), static_cast<off_t>(offset));
        if (done < 0 && errno == EINTR) continue;
        if (done <= 0) detail::throw_io_error(path_, "read back", done < 0 ? errno : EIO);
        bytes = bytes.subspan(static_cast<std::size_t>(done));
        offset += static_cast<std::size_t>(done);
    }
}

GPTQ_INLINE void output_file::truncate(std::size_t size) {
    if (::ftruncate(file_.get(), static_cast<off_t>(size)) != 0) detail::throw_io_error(path_, "shorten", errno);
}

GPTQ_INLINE void output_file::close() {
    if (::fsync(file_.get()) != 0) detail::throw_io_error(path_, "write to the disk", errno);
    if (::close(file_.release()) != 0) detail::throw_io_error(path_, "close", errno);
}

GPTQ_INLINE std::span<const std::byte> bytes_of(std::string_view text) {
    return {reinterpret_cast<const std::byte*>(text.data()), text.size()};
}

}  // namespace gptq::io
