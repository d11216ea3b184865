// DIR of a study: what is finished, and who computes what, for any number of processes and machines at once.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include <gptq/io/file.hpp>

namespace gptq::study {

/// The right to compute one cell, held by one process until it ends in whatever way, or gives it up.
class cell_claim {
 public:
    cell_claim(io::detail::descriptor&& lock, std::filesystem::path path)
        : lock_(std::move(lock)), path_(std::move(path)) {}
    cell_claim(cell_claim&&) = default;
    cell_claim& operator=(cell_claim&&) = delete;
    ~cell_claim();

 private:
    io::detail::descriptor lock_;
    std::filesystem::path path_;
};

/// The folder:
///
///     study.json           what all cells have in common: model, calibration, texts, version
///     cells/KEY.json       {"cell": what can change its result, "result": what was measured}, complete or not there
///     cells/KEY.partial    the same of a cell that is not finished, at depth layers
///     claims/KEY           locked by the process that computes the cell
///     work/KEY             its checkpoint while it is evaluated
///     results.csv, results.json, report.html
///
/// KEY comes from everything that can change the result, and the file says it all, so that another cell is never taken
/// for this one.
class study_folder {
 public:
    using json = nlohmann::ordered_json;

    /// Opens DIR, or makes it. Throws error, saying what differs, where it is that of another study; io_error where it
    /// cannot be written, or is a folder of something else.
    study_folder(std::filesystem::path path, const json& study);

    /// Opens what a study left, to read it. Throws io_error where there is none, format_error.
    explicit study_folder(std::filesystem::path path);

    const std::filesystem::path& path() const { return path_; }

    /// What study.json has.
    const json& study() const { return study_; }

    /// The name of a cell in the folder.
    static std::string key_of(const json& cell);

    /// The result of a finished cell; nothing where it is not finished. Throws format_error where the file is not what
    /// it should be.
    std::optional<json> result(const json& cell) const { return read(cells() / (key_of(cell) + ".json"), cell); }

    /// What is there of a cell in part, likewise.
    std::optional<json> partial(const json& cell) const { return read(cells() / (key_of(cell) + ".partial"), cell); }

    /// All finished cells, as their files have them, in the order of their names.
    std::vector<json> finished() const;

    /// Nothing where another process computes the cell. What a process that was killed wrote half of it goes away.
    std::optional<cell_claim> claim(const json& cell) const;

    /// When these return, the file is on the disk.
    void save(const json& cell, const json& result) const;
    void save_partial(const json& cell, const json& result) const;

    /// Where the checkpoint of a cell is made.
    std::filesystem::path work(const json& cell) const { return path_ / "work" / key_of(cell); }

    /// Takes that checkpoint away; the next process on the folder does it where this one is killed meanwhile. Nothing
    /// happens where there is none.
    void remove_work(const json& cell) const;

    /// Puts a file of this text in the place of another or of none.
    void write(const std::string& name, const std::string& text) const;

 private:
    std::filesystem::path cells() const { return path_ / "cells"; }
    void remove_half_written(const json& cell) const;
    static std::optional<json> read(const std::filesystem::path& file, const json& cell);

    std::filesystem::path path_;
    json study_;
};

}  // namespace gptq::study

#ifndef GPTQ_COMPILED
#include <gptq/study/impl/folder.hpp>
#endif
