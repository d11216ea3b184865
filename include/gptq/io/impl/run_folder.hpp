// The bodies of <gptq/io/run_folder.hpp>.
#pragma once

#include <cerrno>
#include <cstddef>
#include <cstdio>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <system_error>
#include <utility>

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>
#include <nlohmann/json.hpp>

#include <gptq/compiled.hpp>
#include <gptq/error.hpp>
#include <gptq/io/file.hpp>
#include <gptq/io/folder_writer.hpp>
#include <gptq/io/json.hpp>
#include <gptq/io/run_folder.hpp>
#include <gptq/quote.hpp>

namespace gptq::io {
namespace detail {

inline constexpr const char* lock_name = "lock";
inline constexpr const char* state_name = "run.json";

/// Whether a run makes files of that name, or with something behind it until they are complete.
inline bool is_of_run(const std::string& name) {
    if (name == lock_name || name == "result" || name.starts_with(state_name) || name.starts_with("scratch"))
        return true;
    const std::size_t digits = name.find_first_not_of("0123456789");
    return digits != 0 && digits != std::string::npos && name.substr(digits).starts_with(".safetensors");
}

/// A folder of that name may be somebody else's. Throws io_error for one that no run made.
inline void require_run(const std::filesystem::path& folder) {
    std::error_code code;
    for (const auto& entry : std::filesystem::directory_iterator(folder, code))
        if (const std::string name = entry.path().filename().string(); !is_of_run(name))
            throw io_error(folder.string() + ": holds " + in_quotes(name) +
                           ", which is no part of an unfinished run; move it away, or give another name");
}

}  // namespace detail

GPTQ_INLINE run_folder::run_folder(const std::filesystem::path& out)
    : run_folder(detail::new_folder_name(out), detail::new_folder_name(out) += ".partial") {
    refuse_existing(out_);
    detail::require_run(path_);
    do {
        if (::mkdir(path_.c_str(), 0777) != 0 && errno != EEXIST) detail::throw_io_error(path_, "create", errno);
    } while (!lock());  // a run that ends takes its folder away, perhaps just now
    refuse_existing(out_);
    std::filesystem::remove_all(result());
}

GPTQ_INLINE run_folder::~run_folder() {
    if (lock_.get() < 0) return;
    std::error_code ignored;
    if (std::filesystem::exists(path_ / detail::state_name, ignored)) return;
    remove_contents(ignored);
    std::filesystem::remove(path_ / detail::lock_name, ignored);
    std::filesystem::remove(path_, ignored);
}

GPTQ_INLINE bool run_folder::lock() {
    const auto name = path_ / detail::lock_name;
    detail::descriptor file(::open(name.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666));
    if (file.get() < 0 && errno == ENOENT) return false;
    if (file.get() < 0) detail::throw_io_error(name, "create", errno);
    if (::flock(file.get(), LOCK_EX | LOCK_NB) != 0) {
        if (errno != EWOULDBLOCK) detail::throw_io_error(name, "lock", errno);
        throw io_error(out_.string() + ": another run works on it (in " + path_.string() +
                       "); wait for its end, or give another name");
    }
    struct stat held {
    }, named{};
    if (::fstat(file.get(), &held) != 0 || ::stat(name.c_str(), &named) != 0 || held.st_dev != named.st_dev ||
        held.st_ino != named.st_ino)
        return false;
    lock_ = std::move(file);
    return true;
}

GPTQ_INLINE std::optional<nlohmann::ordered_json> run_folder::state() const {
    std::error_code ignored;
    const auto file = path_ / detail::state_name;
    if (!std::filesystem::exists(file, ignored)) return std::nullopt;
    return read_json<nlohmann::ordered_json>(file);
}

GPTQ_INLINE void run_folder::save(const nlohmann::ordered_json& state) const {
    const auto target = path_ / detail::state_name;
    output_file file(detail::fresh_name(target));
    file.write_at(0, bytes_of(json_text(state, target.string())));
    file.close();
    detail::replace_file(file.path(), target);
}

GPTQ_INLINE std::filesystem::path run_folder::piece(std::size_t index) const {
    return path_ / (std::to_string(index) + ".safetensors");
}

GPTQ_INLINE void run_folder::write_piece(std::size_t index, const std::function<void(const tensor_sink&)>& fill) const {
    write_tensors(piece(index), fill);
}

GPTQ_INLINE std::filesystem::path run_folder::result() const { return path_ / "result"; }

GPTQ_INLINE output_file unnamed_file(const std::filesystem::path& folder, const std::string& name) {
    output_file file(detail::fresh_name(folder / name));
    std::filesystem::remove(file.path());
    return file;
}

GPTQ_INLINE output_file run_folder::scratch() const { return unnamed_file(path_, "scratch"); }

GPTQ_INLINE std::size_t run_folder::bytes() const {
    std::size_t sum = 0;
    std::error_code code;
    std::filesystem::directory_iterator entry(path_, code);
    for (; !code && entry != std::filesystem::directory_iterator(); entry.increment(code)) {
        std::error_code ignored;
        const auto size = entry->file_size(ignored);
        if (!ignored) sum += static_cast<std::size_t>(size);
    }
    return sum;
}

GPTQ_INLINE void run_folder::clear() const {
    std::error_code code;
    remove_contents(code);
    if (code) detail::throw_io_error(path_, "empty", code.value());
}

GPTQ_INLINE void run_folder::remove_contents(std::error_code& code) const {
    // The state first, for without it nothing else counts.
    std::filesystem::remove(path_ / detail::state_name, code);
    std::filesystem::directory_iterator entry(path_, code);
    for (; !code && entry != std::filesystem::directory_iterator(); entry.increment(code))
        if (entry->path().filename() != detail::lock_name) std::filesystem::remove_all(entry->path(), code);
}

}  // namespace gptq::io
