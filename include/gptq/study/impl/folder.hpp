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

/// Whether a file has a name that own_name made of that of `target`: somebody writes it, or was killed while writing.
inline bool is_own_name(const std::filesystem::path& file, const std::string& target) {
    return file.filename().string().starts_with(target + ".new-");
}

/// Calls visit(path) for everything in a folder; for nothing where it cannot be read.
template <class Visit>
void visit_entries(const std::filesystem::path& folder, const Visit& visit) {
    std::error_code code;
    std::filesystem::directory_iterator entry(folder, code);
    for (; !code && entry != std::filesystem::directory_iterator(); entry.increment(code)) visit(entry->path());
}

/// Whether there is more than a study.json that another process writes, or wrote until it was killed.
inline bool holds_something_else(const std::filesystem::path& folder) {
    bool found = false;
    visit_entries(folder, [&found](const auto& path) { found = found || !is_own_name(path, study_name); });
    return found;
}

/// Takes away a folder that no process reads. Under its own name it is whole or not there.
inline void remove_at_once(const std::filesystem::path& folder) {
    std::error_code ignored;
    const std::filesystem::path removed = folder.string() + ".removed";
    std::filesystem::remove_all(removed, ignored);
    std::filesystem::rename(folder, removed, ignored);
    std::filesystem::remove_all(removed, ignored);
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
    const auto begun = [&] { return std::filesystem::exists(file, ignored); };
    // Asked again after the look around: another process may begin the same study just now.
    if (!begun() && detail::holds_something_else(path_) && !begun())
        throw io_error(path_.string() + ": holds something else than a study (it has no " + detail::study_name +
                       "); give a new folder");
    if (begun()) {
        const json there = io::read_json<json>(file);
        if (!there.is_object()) throw format_error(file.string() + ": not a JSON object");
        detail::require_same_study(there, study, path_.string());
        if (there.contains("texts") && !there["texts"].empty()) study_["texts"] = there["texts"];
    }
    // Also where nothing changes: it shows that the folder can be written.
    write(detail::study_name, io::json_text(study_, file.string()));
    for (const char* part : {"cells", "claims", "work"}) detail::make_folder(path_ / part);
    detail::visit_entries(path_ / "work", [&ignored](const auto& left) {
        if (left.extension() == ".removed") std::filesystem::remove_all(left, ignored);
    });
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
    detail::visit_entries(cells(), [&files](const auto& path) {
        if (path.extension() == ".json") files.push_back(path);
    });
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
        if (!detail::is_named(file, name)) continue;
        remove_half_written(cell);
        return cell_claim(std::move(file), name);
    }  // whoever held it took the file away, perhaps just now
}

GPTQ_INLINE void study_folder::remove_half_written(const json& cell) const {
    const std::string key = key_of(cell);
    detail::visit_entries(cells(), [&key](const auto& path) {
        std::error_code ignored;
        if (detail::is_own_name(path, key + ".json") || detail::is_own_name(path, key + ".partial"))
            std::filesystem::remove(path, ignored);
    });
}

GPTQ_INLINE void study_folder::remove_work(const json& cell) const {
    detail::remove_at_once(work(cell));
    // What a process left that was killed when its checkpoint was complete.
    detail::visit_entries(path_ / "work", [key = key_of(cell) + ".partial"](const auto& left) {
        std::error_code ignored;
        if (left.filename().string().starts_with(key)) std::filesystem::remove_all(left, ignored);
    });
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
