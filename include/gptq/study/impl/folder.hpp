// The bodies of <gptq/study/folder.hpp>.
#pragma once

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <optional>
#include <random>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>
#include <nlohmann/json.hpp>

#include <gptq/compiled.hpp>
#include <gptq/error.hpp>
#include <gptq/io/file.hpp>
#include <gptq/io/fingerprint.hpp>
#include <gptq/io/folder_writer.hpp>
#include <gptq/io/json.hpp>
#include <gptq/model/run_record.hpp>
#include <gptq/study/folder.hpp>

namespace gptq::study {
namespace detail {

inline constexpr const char* study_name = "study.json";

inline void make_folder(const std::filesystem::path& path) {
    if (::mkdir(path.c_str(), 0777) != 0 && errno != EEXIST) io::detail::throw_io_error(path, "create", errno);
}

/// Texts are compared only where both studies have them: layer errors need none.
inline void require_same_study(const nlohmann::ordered_json& there, const nlohmann::ordered_json& here,
                               const std::string& where) {
    nlohmann::ordered_json ours = here, theirs = there;
    for (const char* key : {"model", "texts"})
        if (key == std::string("model") || !there.contains(key) || !here.contains(key) || there[key].empty() ||
            here[key].empty())
            ours.erase(key), theirs.erase(key);
    if (ours == theirs) return;
    throw error(where + ": is that of another study: " + model::difference_between(theirs, ours) +
                "; give another folder, or the same model, texts and version");
}

/// A name that nobody else writes to, whatever machine.
inline std::filesystem::path own_name(std::filesystem::path path) {
    std::random_device random;
    return path += ".new-" + std::to_string(random()) + std::to_string(random());
}

inline void write_file(const std::filesystem::path& target, const std::string& text) {
    io::output_file file(own_name(target));
    try {
        file.write_at(0, io::bytes_of(text));
        file.close();
        io::detail::replace_file(file.path(), target);
    } catch (...) {
        std::error_code ignored;
        std::filesystem::remove(file.path(), ignored);
        throw;
    }
}

inline void write_cell(const std::filesystem::path& target, const nlohmann::ordered_json& cell,
                       const nlohmann::ordered_json& result) {
    const nlohmann::ordered_json all = {{"cell", cell}, {"result", result}};
    write_file(target, io::json_text(all, target.string()));
}

/// Whether the name still leads to the open file.
inline bool is_named(const io::detail::descriptor& file, const std::filesystem::path& name) {
    struct stat held {
    }, named{};
    return ::fstat(file.get(), &held) == 0 && ::stat(name.c_str(), &named) == 0 && held.st_dev == named.st_dev &&
           held.st_ino == named.st_ino;
}

}  // namespace detail

GPTQ_INLINE cell_claim::~cell_claim() {
    // While it is held, so that nobody finds it who would wait for its end.
    std::error_code ignored;
    if (lock_.get() >= 0) std::filesystem::remove(path_, ignored);
}

GPTQ_INLINE study_folder::study_folder(std::filesystem::path path, const json& study)
    : path_(std::move(path)), study_(study) {
    const auto file = path_ / detail::study_name;
    detail::make_folder(path_);
    std::error_code ignored;
    if (std::filesystem::exists(file, ignored)) {
        const json there = io::read_json<json>(file);
        if (!there.is_object()) throw format_error(file.string() + ": not a JSON object");
        detail::require_same_study(there, study, path_.string());
        if (there.contains("texts") && !there["texts"].empty()) study_["texts"] = there["texts"];
    } else if (!std::filesystem::is_empty(path_)) {
        throw io_error(path_.string() + ": holds something else than a study (it has no " + detail::study_name +
                       "); give a new folder");
    }
    // Also where nothing changes: it shows that the folder can be written.
    write(detail::study_name, io::json_text(study_, file.string()));
    for (const char* part : {"cells", "claims", "work"}) detail::make_folder(path_ / part);
}

GPTQ_INLINE study_folder::study_folder(std::filesystem::path path) : path_(std::move(path)) {
    const auto file = path_ / detail::study_name;
    std::error_code ignored;
    if (!std::filesystem::exists(file, ignored))
        throw io_error(path_.string() + ": has no " + detail::study_name + "; give the DIR of gptq study");
    study_ = io::read_json<json>(file);
    if (!study_.is_object()) throw format_error(file.string() + ": not a JSON object");
}

GPTQ_INLINE std::string study_folder::key_of(const json& cell) {
    io::fingerprint hash;
    hash.add(cell.dump());
    return hash.hex();
}

GPTQ_INLINE std::optional<nlohmann::ordered_json> study_folder::read(const std::filesystem::path& file,
                                                                     const json& cell) {
    std::error_code ignored;
    if (!std::filesystem::exists(file, ignored)) return std::nullopt;
    const json all = io::read_json<json>(file);
    if (!all.is_object() || !all.contains("cell") || !all.contains("result") || all["cell"] != cell)
        throw format_error(file.string() + ": is not the file of this cell; delete it to compute the cell again");
    return all["result"];
}

GPTQ_INLINE std::vector<nlohmann::ordered_json> study_folder::finished() const {
    std::vector<std::filesystem::path> files;
    std::error_code code;
    std::filesystem::directory_iterator entry(cells(), code);
    for (; !code && entry != std::filesystem::directory_iterator(); entry.increment(code))
        if (entry->path().extension() == ".json") files.push_back(entry->path());
    std::sort(files.begin(), files.end());
    std::vector<json> all;
    for (const auto& file : files) {
        all.push_back(io::read_json<json>(file));
        if (!all.back().is_object() || !all.back().contains("cell") || !all.back().contains("result"))
            throw format_error(file.string() + ": is no cell of a study; delete it");
    }
    return all;
}

GPTQ_INLINE std::optional<cell_claim> study_folder::claim(const json& cell) const {
    const auto name = path_ / "claims" / key_of(cell);
    while (true) {
        io::detail::descriptor file(::open(name.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666));
        if (file.get() < 0) io::detail::throw_io_error(name, "create", errno);
        if (::flock(file.get(), LOCK_EX | LOCK_NB) != 0) {
            if (errno != EWOULDBLOCK) io::detail::throw_io_error(name, "lock", errno);
            return std::nullopt;
        }
        if (detail::is_named(file, name)) return cell_claim(std::move(file), name);
    }  // whoever held it took the file away, perhaps just now
}

GPTQ_INLINE void study_folder::save(const json& cell, const json& result) const {
    detail::write_cell(cells() / (key_of(cell) + ".json"), cell, result);
    std::error_code ignored;
    std::filesystem::remove(cells() / (key_of(cell) + ".partial"), ignored);
}

GPTQ_INLINE void study_folder::save_partial(const json& cell, const json& result) const {
    detail::write_cell(cells() / (key_of(cell) + ".partial"), cell, result);
}

GPTQ_INLINE void study_folder::write(const std::string& name, const std::string& text) const {
    detail::write_file(path_ / name, text);
}

}  // namespace gptq::study
