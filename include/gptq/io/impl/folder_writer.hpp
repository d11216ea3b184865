// The bodies of <gptq/io/folder_writer.hpp>.
#pragma once

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdio>
#include <filesystem>
#include <functional>
#include <map>
#include <optional>
#include <random>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>
#include <nlohmann/json.hpp>

#include <gptq/compiled.hpp>
#include <gptq/error.hpp>
#include <gptq/io/dtype.hpp>
#include <gptq/io/file.hpp>
#include <gptq/io/folder_writer.hpp>
#include <gptq/io/json.hpp>
#include <gptq/io/safetensors.hpp>
#include <gptq/io/tensor_sink.hpp>

namespace gptq::io {
namespace detail {

GPTQ_INLINE std::filesystem::path fresh_name(std::filesystem::path path) {
    path += ".new";
    std::filesystem::remove(path);
    return path;
}

/// A tensor's line in a header: "name":{...}. Throws format_error for a name that is not UTF-8.
inline std::string safetensors_entry_text(std::string_view name, dtype type, std::span<const std::size_t> shape,
                                          std::size_t begin, std::size_t end) {
    const nlohmann::ordered_json entry = {{"dtype", dtype_name(type)},
                                          {"shape", std::vector<std::size_t>(shape.begin(), shape.end())},
                                          {"data_offsets", {begin, end}}};
    try {
        return nlohmann::json(name).dump() + ":" + entry.dump();
    } catch (const nlohmann::json::exception& e) {
        throw format_error("tensor \"" + std::string(name) + "\": the name is not UTF-8: " + e.what());
    }
}

GPTQ_INLINE void shard_writer::add(std::string_view name, dtype type, std::span<const std::size_t> shape,
                                   std::span<const std::byte> bytes) {
    const auto entry = safetensors_entry_text(name, type, shape, data_bytes_, data_bytes_ + bytes.size());
    file_.write_at(room + data_bytes_, bytes);
    header_ += "," + entry;
    data_bytes_ += bytes.size();
}

GPTQ_INLINE void shard_writer::close() {
    header_ += "}";
    const bool small_file = room > data_bytes_ / 100;
    const std::size_t data_begin = small_file ? (8 + header_.size() + 7) / 8 * 8 : room;
    if (small_file) move_data_to(data_begin);
    header_.resize(data_begin - 8, ' ');
    std::byte length[8];
    for (std::size_t i = 0; i < 8; ++i) length[i] = static_cast<std::byte>(header_.size() >> (8 * i) & 0xff);
    file_.write_at(0, length);
    file_.write_at(8, bytes_of(header_));
    file_.close();
}

GPTQ_INLINE void shard_writer::move_data_to(std::size_t target) {
    std::vector<std::byte> buffer(std::min(data_bytes_, std::size_t{8} << 20));
    for (std::size_t done = 0; done < data_bytes_;) {
        const auto part = std::span(buffer).first(std::min(buffer.size(), data_bytes_ - done));
        file_.read_at(room + done, part);
        file_.write_at(target + done, part);
        done += part.size();
    }
    file_.truncate(target + data_bytes_);
}

GPTQ_INLINE std::filesystem::path new_folder_name(const std::filesystem::path& out) {
    const auto normal = out.lexically_normal();
    const auto folder = normal.has_filename() ? normal : normal.parent_path();
    if (folder.empty() || folder.filename() == "." || folder.filename() == "..")
        throw io_error("\"" + out.string() + "\": not the name of a new folder");
    return folder;
}

GPTQ_INLINE void replace_file(const std::filesystem::path& from, const std::filesystem::path& to) {
    if (::rename(from.c_str(), to.c_str()) != 0) throw_io_error(to, "create", errno);
    sync_folder(to.has_parent_path() ? to.parent_path() : std::filesystem::path("."));
}

GPTQ_INLINE void sync_folder(const std::filesystem::path& folder) {
    const descriptor file(::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (file.get() < 0) throw_io_error(folder, "open", errno);
    // Some file systems cannot sync folders and say EINVAL; there is nothing better to do on them.
    if (::fsync(file.get()) != 0 && errno != EINVAL) throw_io_error(folder, "write to the disk", errno);
}

/// Renames a folder to a name that must not exist.
inline void rename_folder(const std::filesystem::path& from, const std::filesystem::path& to) {
#ifdef RENAME_NOREPLACE
    if (::renameat2(AT_FDCWD, from.c_str(), AT_FDCWD, to.c_str(), RENAME_NOREPLACE) == 0) return;
    // Not every file system knows the flag; then the check below is the best there is.
    if (errno != EINVAL && errno != ENOSYS) throw_io_error(to, "put the finished folder in place", errno);
#endif
    std::error_code code;
    if (std::filesystem::exists(std::filesystem::symlink_status(to, code)))
        throw_io_error(to, "put the finished folder in place", EEXIST);
    if (::rename(from.c_str(), to.c_str()) != 0) throw_io_error(to, "put the finished folder in place", errno);
}

}  // namespace detail
GPTQ_INLINE void refuse_existing(const std::filesystem::path& out) {
    std::error_code code;
    if (std::filesystem::exists(std::filesystem::symlink_status(out, code)))
        throw io_error(out.string() + ": already exists; choose another name or remove it");
}

GPTQ_INLINE void write_tensors(const std::filesystem::path& path, const std::function<void(const tensor_sink&)>& fill) {
    detail::shard_writer shard(detail::fresh_name(path));
    try {
        fill([&](std::string_view name, dtype type, std::span<const std::size_t> shape,
                 std::span<const std::byte> bytes) {
            if (!shard.has_room()) throw format_error(path.string() + ": has more tensors than fit in one file");
            shard.add(name, type, shape, bytes);
        });
    } catch (...) {
        std::error_code ignored;
        std::filesystem::remove(shard.path(), ignored);
        throw;
    }
    shard.close();
    detail::replace_file(shard.path(), path);
}

GPTQ_INLINE folder_writer::folder_writer(const std::filesystem::path& out, std::size_t shard_bytes)
    : out_(detail::new_folder_name(out)), shard_bytes_(shard_bytes) {
    refuse_existing(out_);
    std::random_device random;
    do {
        temporary_ = out_;
        temporary_ += ".partial-" + std::to_string(random());
    } while (!create_temporary());
}

GPTQ_INLINE folder_writer::folder_writer(const std::filesystem::path& out, std::filesystem::path temporary,
                                         std::size_t shard_bytes)
    : out_(detail::new_folder_name(out)), temporary_(std::move(temporary)), shard_bytes_(shard_bytes) {
    refuse_existing(out_);
    if (!create_temporary()) detail::throw_io_error(temporary_, "create", EEXIST);
}

GPTQ_INLINE folder_writer::~folder_writer() {
    if (state_ == state::finished) return;
    shard_.reset();
    std::error_code ignored;  // nothing can be done about it here, and the folder does not look finished
    std::filesystem::remove_all(temporary_, ignored);
}

GPTQ_INLINE void folder_writer::copy_tensor(const tensor_info& tensor) {
    add_tensor(tensor.name, tensor.dtype, tensor.shape, tensor.bytes.read());
}

GPTQ_INLINE void folder_writer::add_tensor(std::string_view name, dtype type, std::span<const std::size_t> shape,
                                           std::span<const std::byte> bytes) {
    check_tensor(name, type, shape, bytes);
    write([&] {
        if (shard_ && (!shard_->has_room() || shard_->data_bytes() + bytes.size() > shard_bytes_)) close_shard();
        if (!shard_) open_shard();
        shard_->add(name, type, shape, bytes);
    });
    shard_of_.emplace(name, shards_.size() - 1);
    total_bytes_ += bytes.size();
}

GPTQ_INLINE tensor_sink folder_writer::sink() {
    return [this](std::string_view name, dtype type, std::span<const std::size_t> shape,
                  std::span<const std::byte> bytes) { add_tensor(name, type, shape, bytes); };
}

GPTQ_INLINE void folder_writer::write_text(const std::string& name, std::string_view content) {
    write([&] {
        output_file file(new_file(name));
        file.write_at(0, bytes_of(content));
        file.close();
    });
}

GPTQ_INLINE void folder_writer::copy_file(const std::filesystem::path& source) {
    write([&] {
        const input_file content(source);
        output_file file(new_file(source.filename().string()));
        file.copy_from(content);
        file.close();
    });
}

GPTQ_INLINE void folder_writer::finish() {
    write([&] {
        if (shards_.empty()) open_shard();
        if (shard_) close_shard();
        name_shards();
        detail::sync_folder(temporary_);
        detail::rename_folder(temporary_, out_);
    });
    state_ = state::finished;
    detail::sync_folder(out_.has_parent_path() ? out_.parent_path() : std::filesystem::path("."));
}

GPTQ_INLINE bool folder_writer::create_temporary() const {
    // mkdir and not mkdtemp: the finished folder has the permissions that the user's umask gives.
    if (::mkdir(temporary_.c_str(), 0777) == 0) return true;
    if (errno != EEXIST) detail::throw_io_error(temporary_, "create", errno);
    return false;
}

GPTQ_INLINE void folder_writer::check_tensor(std::string_view name, dtype type, std::span<const std::size_t> shape,
                                             std::span<const std::byte> bytes) const {
    const std::string where = out_.string() + ": tensor \"" + std::string(name) + "\"";
    if (name.empty() || name == "__metadata__" || name.size() > detail::max_name_bytes ||
        shape.size() > detail::max_rank)
        throw format_error(where + ": a name or a shape that is not written to safetensors files");
    if (shard_of_.contains(name)) throw format_error(where + ": is there already");
    const auto needed = io::tensor_bytes(type, shape);
    if (!needed || *needed != bytes.size())
        throw shape_error(where + ": " + std::string(dtype_name(type)) + shape_text(shape) + " needs " +
                          (needed ? std::to_string(*needed) : "too many") + " bytes, but " +
                          std::to_string(bytes.size()) + " were given");
}

GPTQ_INLINE std::filesystem::path folder_writer::new_file(const std::string& name) const {
    if (!detail::is_plain_file_name(name))
        throw format_error(out_.string() + ": \"" + name + "\" is not the name of a file in this folder");
    return temporary_ / name;
}

GPTQ_INLINE void folder_writer::open_shard() {
    shards_.push_back(temporary_ / ("shard-" + std::to_string(shards_.size()) + ".partial"));
    shard_.emplace(shards_.back());
}

GPTQ_INLINE void folder_writer::close_shard() {
    shard_->close();
    shard_.reset();
}

GPTQ_INLINE void folder_writer::name_shards() {
    if (shards_.size() == 1) return rename_file(shards_[0], weights_name_ + ".safetensors");
    std::vector<std::string> names;
    for (std::size_t i = 0; i < shards_.size(); ++i) {
        names.push_back(weights_name_ + "-" + five_digits(i + 1) + "-of-" + five_digits(shards_.size()) +
                        ".safetensors");
        rename_file(shards_[i], names.back());
    }
    nlohmann::json index = {{"metadata", {{"total_size", total_bytes_}}}, {"weight_map", nlohmann::json::object()}};
    for (const auto& [tensor, shard] : shard_of_) index["weight_map"][tensor] = names[shard];
    const std::string name = weights_name_ + ".safetensors.index.json";
    output_file file(new_file(name));
    file.write_at(0, bytes_of(json_text(index, name)));
    file.close();
}

GPTQ_INLINE void folder_writer::rename_file(const std::filesystem::path& from, const std::string& name) const {
    std::error_code code;
    std::filesystem::rename(from, temporary_ / name, code);
    if (code) detail::throw_io_error(temporary_ / name, "create", code.value());
}

GPTQ_INLINE std::string folder_writer::five_digits(std::size_t number) {
    const std::string digits = std::to_string(number);
    return std::string(digits.size() < 5 ? 5 - digits.size() : 0, '0') + digits;
}

}  // namespace gptq::io
