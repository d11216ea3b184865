// GGUF files, versions 2 and 3: what llama.cpp and the programs around it read.
//
//   "GGUF" | version (4 bytes) | number of tensors, number of metadata entries (8 each)
//   metadata: key, type (4), value     tensors: name, rank (4), extents (8 each, the fastest first), type (4), offset (8)
//   padding to general.alignment | data; offsets count from its beginning
//
// Such files come from strangers, so everything is checked before a byte of data is read.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <gptq/error.hpp>
#include <gptq/io/file.hpp>

namespace gptq::io {

/// The number of a tensor's type: a float type, or one of layout::ggml_types.
enum class gguf_type : std::uint32_t { f32 = 0, f16 = 1, q4_0 = 2, q5_0 = 6, q8_0 = 8, bf16 = 30 };

/// An entry of the metadata; `type` and `value` as they lie in the file.
struct gguf_entry {
    std::string key;
    std::uint32_t type = 0;
    std::vector<std::byte> value;
};

/// A tensor. The shape is that of a row-major matrix: the last extent varies fastest.
struct gguf_tensor {
    std::string name;
    gguf_type type = gguf_type::f32;
    std::vector<std::size_t> shape;
    file_bytes bytes;
};

/// Bytes of a tensor, or nothing for a type that is none of those, for rows that are no whole number of blocks, and for
/// numbers that do not fit in std::size_t.
std::optional<std::size_t> gguf_bytes(gguf_type type, std::span<const std::size_t> shape);

/// A GGUF file, whose tensors are read when they are asked for.
class gguf_file {
 public:
    /// Throws io_error if the file cannot be read, format_error naming the file and the place if anything in it is
    /// wrong, unsupported_error for another version.
    explicit gguf_file(const std::filesystem::path& path);

    const std::filesystem::path& path() const { return path_; }
    const std::vector<gguf_entry>& metadata() const { return metadata_; }
    const std::vector<gguf_tensor>& tensors() const { return tensors_; }

    /// The text under a key. Throws format_error naming the key if there is none.
    std::string text(std::string_view key) const;

    /// The whole number under a key, of whatever integer type; nothing if there is none.
    std::optional<std::uint64_t> number(std::string_view key) const;

    /// The number or boolean under a key; nothing if there is none. Throws format_error where it is neither.
    std::optional<double> real(std::string_view key) const;

    /// The list under a key: of texts, or of numbers of the size of T as they lie in the file. Throws format_error
    /// naming the key if there is none, or one of other elements.
    std::vector<std::string> texts(std::string_view key) const;
    template <class T>
    std::vector<T> numbers(std::string_view key) const;

    bool contains(std::string_view key) const { return find(key) != nullptr; }

 private:
    const gguf_entry* find(std::string_view key) const;

    /// The elements of a list, behind their type and number, which are checked.
    std::span<const std::byte> elements(std::string_view key, std::size_t size, std::uint64_t& count) const;

    std::filesystem::path path_;
    std::vector<gguf_entry> metadata_;
    std::vector<gguf_tensor> tensors_;
};

template <class T>
std::vector<T> gguf_file::numbers(std::string_view key) const {
    std::uint64_t count = 0;
    const auto bytes = elements(key, sizeof(T), count);
    std::vector<T> out(static_cast<std::size_t>(count));
    if (!out.empty()) std::memcpy(out.data(), bytes.data(), out.size() * sizeof(T));
    return out;
}

/// A tensor that is to be written: its bytes come when they are needed, one tensor at a time.
struct gguf_output {
    std::string name;
    gguf_type type = gguf_type::f32;
    std::vector<std::size_t> shape;
    std::size_t bytes = 0;
};

/// Writes the file `out`, which appears when all of it is on the disk, or not at all. The metadata are those of `base`,
/// but for general.file_type and general.quantization_version. fill(i, bytes) gives the bytes of tensor i.
/// Throws io_error if `out` exists or cannot be written, and what `fill` throws.
template <class Fill>
void write_gguf(const std::filesystem::path& out, const gguf_file& base, std::uint32_t file_type,
                std::span<const gguf_output> tensors, Fill&& fill);

namespace detail {

/// In files that do not say otherwise.
inline constexpr std::size_t gguf_alignment = 32;

inline std::size_t aligned(std::size_t bytes, std::size_t alignment) {
    return (bytes + alignment - 1) / alignment * alignment;
}

/// Everything before the data, padded.
std::vector<std::byte> gguf_header(const gguf_file& base, std::uint32_t file_type,
                                   std::span<const gguf_output> tensors);

/// `PATH.partial`, made a file that is complete by rename_to.
class unfinished_file {
 public:
    explicit unfinished_file(const std::filesystem::path& path);
    unfinished_file(const unfinished_file&) = delete;
    unfinished_file& operator=(const unfinished_file&) = delete;
    ~unfinished_file();

    output_file& file() { return file_; }
    void finish();

 private:
    std::filesystem::path path_;
    output_file file_;
    bool finished_ = false;
};

}  // namespace detail

template <class Fill>
void write_gguf(const std::filesystem::path& out, const gguf_file& base, std::uint32_t file_type,
                std::span<const gguf_output> tensors, Fill&& fill) {
    detail::unfinished_file unfinished(out);
    const std::vector<std::byte> header = detail::gguf_header(base, file_type, tensors);
    unfinished.file().write_at(0, header);
    std::size_t offset = header.size();
    std::vector<std::byte> data;
    for (std::size_t i = 0; i < tensors.size(); ++i) {
        data.assign(detail::aligned(tensors[i].bytes, detail::gguf_alignment), std::byte{0});
        fill(i, std::span(data).first(tensors[i].bytes));
        unfinished.file().write_at(offset, data);
        offset += data.size();
    }
    unfinished.finish();
}

}  // namespace gptq::io

#ifndef GPTQ_COMPILED
#include <gptq/io/impl/gguf.hpp>
#endif
