// The bodies of <gptq/io/file.hpp>.
#pragma once

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <gptq/compiled.hpp>
#include <gptq/error.hpp>
#include <gptq/io/file.hpp>
#include <gptq/quote.hpp>

namespace gptq::io {
namespace detail {

GPTQ_INLINE void throw_io_error(const std::filesystem::path& path, const std::string& what, int code) {
    throw io_error(path.string() + ": cannot " + what + ": " + std::generic_category().message(code));
}

GPTQ_INLINE void read_fully(int file, std::size_t offset, std::span<std::byte> out, const std::filesystem::path& path,
                            const char* what) {
    while (!out.empty()) {
        const ssize_t done = ::pread(file, out.data(), out.size(), static_cast<off_t>(offset));
        if (done < 0 && errno == EINTR) continue;
        if (done <= 0) throw_io_error(path, what, done < 0 ? errno : EIO);
        out = out.subspan(static_cast<std::size_t>(done));
        offset += static_cast<std::size_t>(done);
    }
}

/// Whether the path, which has no links and no dots, lies in the folder.
inline bool lies_in(const std::filesystem::path& path, const std::filesystem::path& folder) {
    return std::mismatch(folder.begin(), folder.end(), path.begin(), path.end()).first == folder.end();
}

GPTQ_INLINE std::filesystem::path target_outside(const std::filesystem::path& path) {
    std::error_code code;
    if (!std::filesystem::is_symlink(std::filesystem::symlink_status(path, code))) return {};
    const auto target = std::filesystem::canonical(path, code);
    if (code) return {};
    const auto folder = std::filesystem::canonical(path.has_parent_path() ? path.parent_path() : ".", code);
    if (lies_in(target, folder)) return {};
    // REPOSITORY/snapshots/REVISION/... has links to REPOSITORY/blobs/...
    for (auto at = folder; at.has_relative_path(); at = at.parent_path())
        if (at.parent_path().filename() == "snapshots" && lies_in(target, at.parent_path().parent_path() / "blobs"))
            return {};
    return target;
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
GPTQ_INLINE input_file::input_file(std::filesystem::path path)
    : path_(std::move(path)), file_(::open(path_.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK)) {
    if (file_.get() < 0) detail::throw_io_error(path_, "open", errno);
    if (const auto target = detail::target_outside(path_); !target.empty())
        throw io_error(path_.string() + ": is a link to " + printable(target.string()) +
                       ", which is outside its folder; put the file itself, or a hard link, in its place");
    struct stat status {};
    if (::fstat(file_.get(), &status) != 0) detail::throw_io_error(path_, "read", errno);
    if (S_ISDIR(status.st_mode)) detail::throw_io_error(path_, "read", EISDIR);
    if (!S_ISREG(status.st_mode)) throw io_error(path_.string() + ": cannot read: not a regular file");
    size_ = static_cast<std::size_t>(status.st_size);
    modified_ = status.st_mtim;
}

GPTQ_INLINE void input_file::read_at(std::size_t offset, std::span<std::byte> out) const {
    const auto require_unchanged = [&] {
        struct stat now {};
        if (::fstat(file_.get(), &now) != 0) detail::throw_io_error(path_, "read", errno);
        if (static_cast<std::size_t>(now.st_size) != size_ || now.st_mtim.tv_sec != modified_.tv_sec ||
            now.st_mtim.tv_nsec != modified_.tv_nsec)
            throw io_error(path_.string() + ": was changed while it was in use (" + std::to_string(size_) +
                           " bytes before, " + std::to_string(now.st_size) + " now); begin again with a whole file");
    };
    try {
        detail::read_fully(file_.get(), offset, out, path_, "read");
    } catch (const io_error&) {
        require_unchanged();  // the better reason
        throw;
    }
    require_unchanged();
}

GPTQ_INLINE void file_bytes::read(std::span<std::byte> out) const {
    if (size_ != 0) source_->read_at(begin_, out.first(size_));
}

GPTQ_INLINE std::vector<std::byte> file_bytes::read() const {
    std::vector<std::byte> bytes(size_);
    read(bytes);
    return bytes;
}

GPTQ_INLINE std::string read_text_file(const std::filesystem::path& path, std::size_t max_bytes) {
    const input_file file(path);
    if (file.size() > max_bytes)
        throw format_error(path.string() + ": has " + std::to_string(file.size()) + " bytes; at most " +
                           std::to_string(max_bytes) + " are read from a file of this kind");
    std::string text(file.size(), '\0');
    file.read_at(0, std::as_writable_bytes(std::span(text)));
    return text;
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
    detail::read_fully(file_.get(), offset, bytes, path_, "read back");
}

GPTQ_INLINE void output_file::copy_from(const input_file& source) {
    std::vector<std::byte> buffer(std::min(source.size(), std::size_t{8} << 20));
    for (std::size_t done = 0; done < source.size();) {
        const auto part = std::span(buffer).first(std::min(buffer.size(), source.size() - done));
        source.read_at(done, part);
        write_at(done, part);
        done += part.size();
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
