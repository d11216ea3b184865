// safetensors files, mapped read-only:
//
//   n (8 bytes, little endian) | JSON header (n bytes) | data
//   header: {"name": {"dtype": "F32", "shape": [2, 3], "data_offsets": [begin, end]}, ..., "__metadata__": {"k": "v"}}
//
// Such files come from strangers, so everything is checked before a byte of data is touched.
#pragma once

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <limits>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include <gptq/error.hpp>
#include <gptq/io/dtype.hpp>
#include <gptq/io/file.hpp>
#include <gptq/io/foreign_files.hpp>

namespace gptq::io {

static_assert(std::endian::native == std::endian::little, "the files are little endian and are used as they lie");

/// The largest header that the format allows.
inline constexpr std::size_t max_safetensors_header = 100'000'000;

/// A tensor of a mapped file. `bytes` is valid as long as the file is open and need not be aligned for its type.
struct tensor_info {
    std::string name;
    io::dtype dtype = io::dtype::f32;
    std::vector<std::size_t> shape;
    std::span<const std::byte> bytes;
};

/// A shape as messages show it: "[2, 3]".
inline std::string shape_text(std::span<const std::size_t> shape) {
    std::string text = "[";
    for (std::size_t i = 0; i < shape.size(); ++i) text += (i == 0 ? "" : ", ") + std::to_string(shape[i]);
    return text + "]";
}

/// Bytes of a tensor of that type and shape, or nothing if the number does not fit in std::size_t.
inline std::optional<std::size_t> tensor_bytes(dtype type, std::span<const std::size_t> shape) {
    // A zero anywhere makes the tensor empty, however large the other extents are.
    if (std::find(shape.begin(), shape.end(), std::size_t{0}) != shape.end()) return 0;
    std::size_t bytes = dtype_size(type);
    for (const std::size_t extent : shape) {
        if (bytes > std::numeric_limits<std::size_t>::max() / extent) return std::nullopt;
        bytes *= extent;
    }
    return bytes;
}

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

    bool start_object(std::size_t) {
        switch (state_) {
            case state::start: state_ = state::top; return true;
            case state::value: state_ = state::entry; return true;
            case state::metadata_value: state_ = state::metadata; return true;
            default: fail("an object where none belongs");
        }
    }

    bool key(std::string& name) {
        if (state_ == state::top) return top_key(name);
        if (state_ == state::entry) return entry_key(name);
        if (metadata.contains(name)) fail("key \"" + name + "\" appears twice in __metadata__");
        metadata_key_ = name;
        state_ = state::metadata_text;
        return true;
    }

    bool string(std::string& text) {
        if (state_ == state::metadata_text) {
            metadata.emplace(metadata_key_, text);
            state_ = state::metadata;
            return true;
        }
        if (state_ != state::dtype) fail("a string where none belongs");
        entry().type = dtype_from_name(text);
        if (!entry().type)
            throw unsupported_error(file_ + ": tensor \"" + entry().name + "\" has the unknown dtype \"" + text + "\"");
        state_ = state::entry;
        return true;
    }

    bool start_array(std::size_t) {
        if (state_ == state::shape_value) return begin_array(entry().shape, state::shape);
        if (state_ == state::offsets_value) return begin_array(entry().offsets, state::offsets);
        fail("an array where none belongs");
    }

    bool number_unsigned(std::uint64_t value) {
        if (state_ != state::shape && state_ != state::offsets) fail("a number where none belongs");
        if (value > std::numeric_limits<std::size_t>::max()) fail("a number that this machine cannot address");
        auto& numbers = state_ == state::shape ? *entry().shape : *entry().offsets;
        numbers.push_back(static_cast<std::size_t>(value));
        return true;
    }

    bool end_array() {
        state_ = state::entry;
        return true;
    }

    bool end_object() {
        if (state_ == state::entry) {
            const auto& e = entry();
            if (!e.type || !e.shape || !e.offsets) fail("dtype, shape or data_offsets is missing");
            if (e.offsets->size() != 2) fail("data_offsets must be two numbers");
        }
        state_ = state_ == state::top ? state::end : state::top;
        return true;
    }

    bool null() { fail("null where none belongs"); }
    bool boolean(bool) { fail("a boolean where none belongs"); }
    bool number_integer(std::int64_t value) {
        fail(std::to_string(value) + " where only non-negative integers belong");
    }
    bool number_float(double, const std::string& text) {
        fail(text + " where only non-negative integers of 64 bits belong");
    }
    bool binary(json::binary_t&) { fail("binary data"); }
    bool parse_error(std::size_t, const std::string&, const json::exception& e) { fail(e.what()); }

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

    bool top_key(const std::string& name) {
        if (name == "__metadata__") {
            if (seen_metadata_) fail("__metadata__ appears twice");
            seen_metadata_ = true;
            state_ = state::metadata_value;
            return true;
        }
        entries.push_back({name, {}, {}, {}});
        state_ = state::value;
        return true;
    }

    bool entry_key(const std::string& name) {
        const auto expect_once = [&](bool seen, state next) {
            if (seen) fail("\"" + name + "\" appears twice");
            state_ = next;
            return true;
        };
        if (name == "dtype") return expect_once(entry().type.has_value(), state::dtype);
        if (name == "shape") return expect_once(entry().shape.has_value(), state::shape_value);
        if (name == "data_offsets") return expect_once(entry().offsets.has_value(), state::offsets_value);
        fail("unknown field \"" + name + "\"");
    }

    bool begin_array(std::optional<std::vector<std::size_t>>& numbers, state next) {
        numbers.emplace();
        state_ = next;
        return true;
    }

    [[noreturn]] void fail(const std::string& what) const {
        const bool in_entry = state_ != state::start && state_ != state::top && state_ != state::end &&
                              !entries.empty() && state_ != state::metadata && state_ != state::metadata_value &&
                              state_ != state::metadata_text;
        throw format_error(file_ + ": not a valid safetensors header: " +
                           (in_entry ? "tensor \"" + entries.back().name + "\": " : std::string()) + what);
    }

    const std::string& file_;
    state state_ = state::start;
    bool seen_metadata_ = false;
    std::string metadata_key_;
};

}  // namespace detail

/// A safetensors file, mapped read-only and checked completely by the constructor: header length, JSON, types, shapes,
/// offsets, and that the tensors cover the data without holes or overlaps. Movable; tensors stay where they are.
class safetensors_file {
 public:
    /// Throws io_error if the file cannot be read, format_error (naming file and tensor) if anything in it is wrong,
    /// unsupported_error for an unknown dtype.
    explicit safetensors_file(const std::filesystem::path& path) : path_(path), file_(path) {
        refuse_foreign_content(path);
        const std::string name = path.string();
        detail::safetensors_header_reader header(name);
        const auto data = parse_header(name, header);
        metadata_ = std::move(header.metadata);
        tensors_.reserve(header.entries.size());
        for (auto& entry : header.entries) tensors_.push_back(checked_tensor(name, std::move(entry), data));
        check_cover(name, data);
        for (const auto& tensor : tensors_)
            if (!by_name_.emplace(tensor.name, &tensor).second)
                throw format_error(name + ": tensor \"" + tensor.name + "\" appears twice");
    }
    safetensors_file(safetensors_file&&) = default;
    safetensors_file& operator=(safetensors_file&&) = default;

    const std::filesystem::path& path() const { return path_; }

    /// All tensors in the order of their data.
    const std::vector<tensor_info>& tensors() const { return tensors_; }

    /// The tensor of that name, or nullptr.
    const tensor_info* find(std::string_view name) const {
        const auto found = by_name_.find(name);
        return found == by_name_.end() ? nullptr : found->second;
    }

    /// `__metadata__`, empty if the file has none.
    const std::map<std::string, std::string>& metadata() const { return metadata_; }

 private:
    /// Reads the header into `header` and returns the data behind it.
    std::span<const std::byte> parse_header(const std::string& name, detail::safetensors_header_reader& header) const {
        const auto bytes = file_.bytes();
        if (bytes.size() < 8)
            throw format_error(name + ": has " + std::to_string(bytes.size()) +
                               " bytes; a safetensors file has at least 8 (truncated?)");
        std::uint64_t length = 0;
        for (std::size_t i = 0; i < 8; ++i) length |= std::to_integer<std::uint64_t>(bytes[i]) << (8 * i);
        if (length > max_safetensors_header)
            throw format_error(name + ": claims a header of " + std::to_string(length) + " bytes; the format allows " +
                               std::to_string(max_safetensors_header) + " (not a safetensors file?)");
        if (length > bytes.size() - 8)
            throw format_error(name + ": claims a header of " + std::to_string(length) + " bytes, but only " +
                               std::to_string(bytes.size() - 8) + " follow (truncated?)");
        const auto header_size = static_cast<std::size_t>(length);
        const std::string_view text(reinterpret_cast<const char*>(bytes.data()) + 8, header_size);
        if (!text.starts_with('{')) throw format_error(name + ": the safetensors header does not begin with '{'");
        nlohmann::json::sax_parse(text.begin(), text.end(), &header);
        return bytes.subspan(8 + header_size);
    }

    /// The entry as a tensor: its offsets lie in the data, and their distance is what type and shape need.
    static tensor_info checked_tensor(const std::string& file, detail::safetensors_entry entry,
                                      std::span<const std::byte> data) {
        const std::size_t begin = (*entry.offsets)[0];
        const std::size_t end = (*entry.offsets)[1];
        const auto describe = [&] {
            return file + ": tensor \"" + entry.name + "\" " + std::string(dtype_name(*entry.type)) +
                   shape_text(*entry.shape);
        };
        const auto needed = tensor_bytes(*entry.type, *entry.shape);
        if (!needed) throw format_error(describe() + ": its size overflows");
        if (begin > end || end > data.size())
            throw format_error(describe() + ": data_offsets [" + std::to_string(begin) + ", " + std::to_string(end) +
                               "] do not lie in the " + std::to_string(data.size()) + " bytes of data (truncated?)");
        if (end - begin != *needed)
            throw format_error(describe() + ": needs " + std::to_string(*needed) + " bytes, but data_offsets give " +
                               std::to_string(end - begin));
        return {std::move(entry.name), *entry.type, std::move(*entry.shape), data.subspan(begin, end - begin)};
    }

    /// Sorts the tensors by their place, and checks that each begins where the one before it ends.
    void check_cover(const std::string& file, std::span<const std::byte> data) {
        std::sort(tensors_.begin(), tensors_.end(), [](const tensor_info& a, const tensor_info& b) {
            if (a.bytes.data() != b.bytes.data()) return a.bytes.data() < b.bytes.data();
            return a.bytes.size() < b.bytes.size();
        });
        std::size_t position = 0;
        for (const auto& tensor : tensors_) {
            const auto begin = static_cast<std::size_t>(tensor.bytes.data() - data.data());
            if (begin != position)
                throw format_error(file + ": tensor \"" + tensor.name + "\" begins at byte " + std::to_string(begin) +
                                   " of the data, where " + std::to_string(position) +
                                   " was expected: " + (begin < position ? "tensors overlap" : "there is a hole"));
            position += tensor.bytes.size();
        }
        if (position != data.size())
            throw format_error(file + ": its tensors cover " + std::to_string(position) + " bytes of data, but " +
                               std::to_string(data.size()) + " are there");
    }

    std::filesystem::path path_;
    mapped_file file_;
    std::vector<tensor_info> tensors_;
    std::map<std::string, std::string> metadata_;
    std::unordered_map<std::string_view, const tensor_info*> by_name_;  // views into tensors_
};

}  // namespace gptq::io
