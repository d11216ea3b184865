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

/// What the file is, for a message ("is a git-lfs pointer, ..."), if it is one of the things that people have in place
/// of a model's files; "" otherwise and for files that cannot be read.
std::string foreign_content(const std::filesystem::path& path);

/// Throws format_error if the file is one of those that foreign_content knows.
void refuse_foreign_content(const std::filesystem::path& path);

namespace detail {

bool exists_in(const std::filesystem::path& folder, std::string_view name);

}  // namespace detail

/// What the folder is that is no model of config.json and safetensors files, and what to do, for the end of a message;
/// "" if nothing in it tells. `files` are those directly in it.
std::string foreign_folder(const std::filesystem::path& folder, const std::vector<std::filesystem::path>& files);

/// Why the folder has no tokenizer.json, for the end of a message.
std::string foreign_tokenizer(const std::filesystem::path& folder);

}  // namespace gptq::io

#ifndef GPTQ_COMPILED
#include <gptq/io/impl/foreign_files.hpp>
#endif
