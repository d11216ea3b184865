// safetensors files:
//
//   n (8 bytes, little endian) | JSON header (n bytes) | data
//   header: {"name": {"dtype": "F32", "shape": [2, 3], "data_offsets": [begin, end]}, ..., "__metadata__": {"k": "v"}}
//
// Such files come from strangers, so everything is checked before a byte of data is read.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include <nlohmann/json.hpp>

#include <gptq/error.hpp>
#include <gptq/io/dtype.hpp>
#include <gptq/io/file.hpp>
#include <gptq/quote.hpp>

namespace gptq::io {

static_assert(std::endian::native == std::endian::little, "the files are little endian and are used as they lie");

/// The largest header that the format allows.
inline constexpr std::size_t max_safetensors_header = 100'000'000;

/// A tensor of a file, whose bytes are read when they are asked for.
struct tensor_info {
    std::string name;
    io::dtype dtype = io::dtype::f32;
    std::vector<std::size_t> shape;
    file_bytes bytes;
};

/// A shape as messages show it: "[2, 3]".
std::string shape_text(std::span<const std::size_t> shape);

/// Bytes of a tensor of that type and shape, or nothing if the number does not fit in std::size_t.
std::optional<std::size_t> tensor_bytes(dtype type, std::span<const std::size_t> shape);

namespace detail {

/// One entry of a header, as it stands there.
struct safetensors_entry {
    std::string name;
    std::optional<io::dtype> type;
    std::optional<std::vector<std::size_t>> shape;
    std::optional<std::vector<std::size_t>> offsets;
};

/// Takes the tokens of a header and accepts exactly the structure that the format defines, so that a hostile header
/// costs no more memory than it has bytes. Every deviation throws format_error.
class safetensors_header_reader {
 public:
    using json = nlohmann::json;

    explicit safetensors_header_reader(const std::string& file) : file_(file) {}

    std::vector<safetensors_entry> entries;
    std::map<std::string, std::string> metadata;

    bool start_object(std::size_t);

    bool key(std::string& name);

    bool string(std::string& text);

    bool start_array(std::size_t);

    bool number_unsigned(std::uint64_t value);

    bool end_array();

    bool end_object();

    bool null() { fail("null where none belongs"); }
    bool boolean(bool) { fail("a boolean where none belongs"); }
    bool number_integer(std::int64_t value);
    bool number_float(double, const std::string& text);
    bool binary(json::binary_t&) { fail("binary data"); }
    bool parse_error(std::size_t, const std::string&, const json::exception& e) { fail(printable(e.what(), 400)); }

 private:
    enum class state {
        start,
        top,
        value,
        entry,
        dtype,
        shape_value,
        shape,
        offsets_value,
        offsets,
        metadata_value,
        metadata,
        metadata_text,
        end
    };

    safetensors_entry& entry() { return entries.back(); }

    bool top_key(const std::string& name);

    bool entry_key(const std::string& name);

    bool begin_array(std::optional<std::vector<std::size_t>>& numbers, state next);

    [[noreturn]] void fail(const std::string& what) const;

    const std::string& file_;
    state state_ = state::start;
    bool seen_metadata_ = false;
    std::string metadata_key_;
};

}  // namespace detail

/// A safetensors file, whose header the constructor checks completely: length, JSON, types, shapes, offsets, and that
/// the tensors cover the data without holes or overlaps. Movable; tensors stay where they are.
class safetensors_file {
 public:
    /// Throws io_error if the file cannot be read, format_error (naming file and tensor) if anything in it is wrong,
    /// unsupported_error for an unknown dtype.
    explicit safetensors_file(const std::filesystem::path& path);
    safetensors_file(safetensors_file&&) = default;
    safetensors_file& operator=(safetensors_file&&) = default;

    const std::filesystem::path& path() const { return path_; }

    /// All tensors in the order of their data.
    const std::vector<tensor_info>& tensors() const { return tensors_; }

    /// The tensor of that name, or nullptr.
    const tensor_info* find(std::string_view name) const;

    /// `__metadata__`, empty if the file has none.
    const std::map<std::string, std::string>& metadata() const { return metadata_; }

 private:
    /// Reads the header into `header` and returns the data behind it.
    static file_bytes parse_header(const std::shared_ptr<const input_file>& file, const std::string& name,
                                   detail::safetensors_header_reader& header);

    /// The entry as a tensor: its offsets lie in the data, and their distance is what type and shape need.
    static tensor_info checked_tensor(const std::string& file, detail::safetensors_entry entry, const file_bytes& data);

    /// Sorts the tensors by their place, and checks that each begins where the one before it ends.
    void check_cover(const std::string& file, const file_bytes& data);

    std::filesystem::path path_;
    std::vector<tensor_info> tensors_;
    std::map<std::string, std::string> metadata_;
    std::unordered_map<std::string_view, const tensor_info*> by_name_;  // views into tensors_
};

}  // namespace gptq::io

#ifndef GPTQ_COMPILED
#include <gptq/io/impl/safetensors.hpp>
#endif
