// The bodies of <gptq/io/foreign_files.hpp>.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <vector>

#include <fcntl.h>
#include <unistd.h>
#include <nlohmann/json.hpp>

#include <gptq/compiled.hpp>
#include <gptq/error.hpp>
#include <gptq/io/file.hpp>
#include <gptq/io/foreign_files.hpp>
#include <gptq/io/json.hpp>
#include <gptq/quote.hpp>

namespace gptq::io {
namespace detail {

GPTQ_INLINE std::string lower_case(std::string text) {
    for (char& c : text)
        if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
    return text;
}

/// The beginning of the file in lower case, without white space before it; "" if it cannot be read.
inline std::string beginning_of(const std::filesystem::path& path) {
    std::string text(512, '\0');
    const descriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
    const ssize_t length = file.get() < 0 ? -1 : ::pread(file.get(), text.data(), text.size(), 0);
    text.resize(length > 0 ? static_cast<std::size_t>(length) : 0);
    text.erase(0, std::min(text.find_first_not_of(" \t\r\n"), text.size()));
    return lower_case(std::move(text));
}

struct foreign_kind {
    std::string_view beginning;
    std::string_view what;  ///< what the file is, and what to do
};

inline constexpr std::string_view saved_page = "is a web page that was saved in place of the file; download it again";

inline constexpr std::string_view saved_answer =
    "holds a server's error message in place of the file; log in where that is needed and download it again";

inline constexpr std::array<foreign_kind, 10> foreign_kinds = {{
    {"version https://git-lfs", "is a git-lfs pointer, not the file itself; run \"git lfs pull\" in its folder"},
    {"<!doctype html", saved_page},
    {"<html", saved_page},
    {"<?xml", saved_answer},
    {"entry not found", saved_answer},
    {"access to model", saved_answer},
    {"invalid username or password", saved_answer},
    {"gguf", "is a GGUF file; take the model's folder of safetensors files, from which it was made"},
    {"pk\x03\x04", "is a zip archive or a PyTorch checkpoint; unpack it or convert it to safetensors"},
    {"\x1f\x8b", "is compressed by gzip; unpack it"},
}};

}  // namespace detail
GPTQ_INLINE std::string foreign_content(const std::filesystem::path& path) {
    const std::string text = detail::beginning_of(path);
    for (const detail::foreign_kind& kind : detail::foreign_kinds)
        if (text.starts_with(kind.beginning)) return std::string(kind.what);
    return "";
}

GPTQ_INLINE void refuse_foreign_content(const std::filesystem::path& path) {
    const std::string what = foreign_content(path);
    if (!what.empty()) throw format_error(path.string() + ": " + what);
}

namespace detail {

GPTQ_INLINE bool exists_in(const std::filesystem::path& folder, std::string_view name) {
    std::error_code ignored;
    return std::filesystem::exists(folder / name, ignored);
}

/// The name of the first file of the folder that ends so; "" if there is none.
inline std::string file_ending_in(const std::vector<std::filesystem::path>& files, std::string_view suffix) {
    for (const auto& file : files)
        if (file.filename().string().ends_with(suffix)) return file.filename().string();
    return "";
}

/// The model that an adapter belongs to, as its config names it; "" if it does not.
inline std::string base_of_adapter(const std::filesystem::path& folder) {
    try {
        const auto config = read_json(folder / "adapter_config.json");
        return config.at("base_model_name_or_path").get<std::string>();
    } catch (const std::exception&) {
        return "";  // the name is only for a message
    }
}

/// A folder below that holds a whole model: a snapshot of the Hub's cache, or a folder in a folder.
inline std::filesystem::path model_below(const std::filesystem::path& folder) {
    std::error_code code;
    for (const auto& parent : {folder / "snapshots", folder}) {
        std::filesystem::directory_iterator entry(parent, code);
        for (; !code && entry != std::filesystem::directory_iterator(); entry.increment(code))
            if (exists_in(entry->path(), "config.json")) return entry->path();
        code.clear();
    }
    return {};
}

/// The first name in the folder that is a link to nothing; "" if there is none.
inline std::string broken_link_in(const std::filesystem::path& folder) {
    std::error_code code;
    std::string first;
    std::filesystem::directory_iterator entry(folder, code);
    for (; !code && entry != std::filesystem::directory_iterator(); entry.increment(code)) {
        std::error_code gone;
        const std::string name = entry->path().filename().string();
        if (entry->is_symlink(gone) && !std::filesystem::exists(entry->path(), gone) && (first.empty() || name < first))
            first = name;
    }
    return first;
}

struct weight_kind {
    std::string_view suffix, what;
};

inline constexpr std::array<weight_kind, 9> weight_kinds = {{
    {".gguf", "a GGUF file; give the file itself, or the folder of safetensors files from which it was made"},
    {".ggml", "a GGML file; take the folder of safetensors files from which it was made"},
    {".part", "a download that is not complete; finish it first"},
    {".incomplete", "a download that is not complete; finish it first"},
    {".crdownload", "a download that is not complete; finish it first"},
    {".bin", "weights of PyTorch; load the model in transformers and call save_pretrained(), which writes safetensors"},
    {".pth", "weights of PyTorch in their maker's own layout; take the model's version for transformers"},
    {".pt", "weights of PyTorch; load the model in transformers and call save_pretrained(), which writes safetensors"},
    {".h5", "weights of TensorFlow; load the model in transformers and call save_pretrained()"},
}};

}  // namespace detail
GPTQ_INLINE std::string foreign_folder(const std::filesystem::path& folder,
                                       const std::vector<std::filesystem::path>& files) {
    if (const std::string link = detail::broken_link_in(folder); !link.empty())
        return link + " is a link to a file that is not there; download the model again";
    if (detail::exists_in(folder, "adapter_config.json")) {
        const std::string base = detail::base_of_adapter(folder);
        return "it holds an adapter (adapter_config.json)" + (base.empty() ? "" : " of the model " + in_quotes(base)) +
               ", not a model; merge it into its model first (merge_and_unload() of PEFT) and save that";
    }
    for (const detail::weight_kind& kind : detail::weight_kinds)
        if (const std::string name = detail::file_ending_in(files, kind.suffix); !name.empty())
            return "it holds " + name + ", " + std::string(kind.what);
    if (const auto below = detail::model_below(folder); !below.empty())
        return "the folder " + below.string() + " in it holds a model; give that one";
    return "";
}

GPTQ_INLINE std::string foreign_tokenizer(const std::filesystem::path& folder) {
    static constexpr const char* convert =
        "; make a tokenizer.json of it with transformers: "
        "AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER)";
    if (detail::exists_in(folder, "tekken.json"))
        return "it holds tekken.json, a tokenizer of mistral-common; take the model's version for transformers";
    if (detail::exists_in(folder, "vocab.json"))
        return "it holds vocab.json (and merges.txt), the older form of a tokenizer" + std::string(convert);
    if (detail::exists_in(folder, "vocab.txt"))
        return "it holds vocab.txt, the older form of a tokenizer" + std::string(convert);
    return "copy the tokenizer of the model that these weights were made from";
}

}  // namespace gptq::io
