// OUT.partial: what long work on a folder OUT has finished so far, so that a run that was stopped can go on.
#pragma once

#include <cstddef>
#include <filesystem>
#include <functional>
#include <optional>
#include <system_error>
#include <utility>

#include <nlohmann/json.hpp>

#include <gptq/io/file.hpp>
#include <gptq/io/tensor_sink.hpp>

namespace gptq::io {

/// A new file in `folder` that has no name any more: nothing is left of it when the process ends, in whatever way. What
/// is there under `name` with ".new" is removed. Throws io_error.
output_file unnamed_file(const std::filesystem::path& folder, const std::string& name);

/// The folder OUT.partial, of one process at a time:
///
///     lock          held by that process, free when it ends in whatever way
///     run.json      what the run is and how much of it is done; replaced as a whole
///     0.safetensors, 1.safetensors, ...    finished pieces; they appear complete and on the disk, or not at all
///     result        OUT as it is put together in the end
///
/// A run that is killed at any moment leaves the pieces that run.json tells of. Pieces without a run.json are nothing.
class run_folder {
 public:
    /// Opens OUT.partial, or makes it. Throws io_error if OUT exists, if another process works on it, if the folder holds
    /// what no run has put there, or if it cannot be written to.
    explicit run_folder(const std::filesystem::path& out);
    run_folder(const run_folder&) = delete;
    run_folder& operator=(const run_folder&) = delete;

    /// Removes the folder where it has no run.json: then nothing in it is of use.
    ~run_folder();

    const std::filesystem::path& out() const { return out_; }
    const std::filesystem::path& path() const { return path_; }

    /// What run.json holds; nothing if there is none. Throws format_error if it is no JSON.
    std::optional<nlohmann::ordered_json> state() const;

    /// Replaces run.json. When this returns, it is on the disk.
    void save(const nlohmann::ordered_json& state) const;

    /// The file of piece `index`.
    std::filesystem::path piece(std::size_t index) const;

    /// Writes piece `index`, in the place of any that is there: what `fill` hands to its argument. When this returns,
    /// it is on the disk.
    void write_piece(std::size_t index, const std::function<void(const tensor_sink&)>& fill) const;

    /// Where OUT is put together, in the same file system. The folder is not there.
    std::filesystem::path result() const;

    /// An unnamed file for what memory does not hold.
    output_file scratch() const;

    /// Bytes of all files in the folder.
    std::size_t bytes() const;

    /// Removes everything but the lock.
    void clear() const;

 private:
    run_folder(std::filesystem::path out, std::filesystem::path path) : out_(std::move(out)), path_(std::move(path)) {}

    /// False if the folder was removed meanwhile.
    bool lock();

    void remove_contents(std::error_code& code) const;

    std::filesystem::path out_, path_;
    detail::descriptor lock_;
};

}  // namespace gptq::io

#ifndef GPTQ_COMPILED
#include <gptq/io/impl/run_folder.hpp>
#endif
