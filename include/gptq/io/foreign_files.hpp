// What a file or a folder is that is not what was expected, so that messages say what to do about it.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace gptq::io {

namespace detail {

std::string lower_case(std::string text);

}  // namespace detail

/// What the file is, for a message ("is a git-lfs pointer, ..."), if it is no model's file but one of the files that
/// often lie in its place; "" otherwise, and for files that cannot be read.
std::string foreign_content(const std::filesystem::path& path);

/// Throws format_error if the file is one of those that foreign_content knows.
void refuse_foreign_content(const std::filesystem::path& path);

namespace detail {

bool exists_in(const std::filesystem::path& folder, std::string_view name);

}  // namespace detail

/// The end of a message about a folder without config.json or safetensors files: what the folder is, and what to do; ""
/// if nothing in it tells. `files` are the files directly in it.
std::string foreign_folder(const std::filesystem::path& folder, const std::vector<std::filesystem::path>& files);

/// Why the folder has no tokenizer.json, for the end of a message.
std::string foreign_tokenizer(const std::filesystem::path& folder);

}  // namespace gptq::io

#ifndef GPTQ_COMPILED
#include <gptq/io/impl/foreign_files.hpp>
#endif
