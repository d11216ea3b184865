// The bodies of <gptq/io/safetensors.hpp>.
#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <limits>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include <gptq/compiled.hpp>
#include <gptq/error.hpp>
#include <gptq/io/dtype.hpp>
#include <gptq/io/file.hpp>
#include <gptq/io/foreign_files.hpp>
#include <gptq/io/safetensors.hpp>
#include <gptq/quote.hpp>

namespace gptq::io {

GPTQ_INLINE std::string shape_text(std::span<const std::size_t> shape) {
    std::string text = "[";
    for (std::size_t i = 0; i < shape.size(); ++i) text += (i == 0 ? "" : ", ") + std::to_string(shape[i]);
    return text + "]";
}

GPTQ_INLINE std::optional<std::size_t> tensor_bytes(dtype type, std::span<const std::size_t> shape) {
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

GPTQ_INLINE bool safetensors_header_reader::start_object(std::size_t) {
    switch (state_) {
        case state::start: state_ = state::top; return true;
        case state::value: state_ = state::entry; return true;
        case state::metadata_value: state_ = state::metadata; return true;
        default: fail("an object where none belongs");
    }
}

GPTQ_INLINE bool safetensors_header_reader::key(std::string& name) {
    if (state_ == state::top) return top_key(name);
    if (state_ == state::entry) return entry_key(name);
    if (metadata.contains(name)) fail("key " + in_quotes(name) + " appears twice in __metadata__");
    metadata_key_ = name;
    state_ = state::metadata_text;
    return true;
}

GPTQ_INLINE bool safetensors_header_reader::string(std::string& text) {
    if (state_ == state::metadata_text) {
        metadata.emplace(metadata_key_, text);
        state_ = state::metadata;
        return true;
    }
    if (state_ != state::dtype) fail("a string where none belongs");
    entry().type = dtype_from_name(text);
    if (!entry().type)
        throw unsupported_error(file_ + ": tensor " + in_quotes(entry().name) + " has the unknown dtype " +
                                in_quotes(text));
    state_ = state::entry;
    return true;
}

GPTQ_INLINE bool safetensors_header_reader::start_array(std::size_t) {
    if (state_ == state::shape_value) return begin_array(entry().shape, state::shape);
    if (state_ == state::offsets_value) return begin_array(entry().offsets, state::offsets);
    fail("an array where none belongs");
}

GPTQ_INLINE bool safetensors_header_reader::number_unsigned(std::uint64_t value) {
    if (state_ != state::shape && state_ != state::offsets) fail("a number where none belongs");
    if (value > std::numeric_limits<std::size_t>::max()) fail("a number that this machine cannot address");
    auto& numbers = state_ == state::shape ? *entry().shape : *entry().offsets;
    numbers.push_back(static_cast<std::size_t>(value));
    return true;
}

GPTQ_INLINE bool safetensors_header_reader::end_array() {
    state_ = state::entry;
    return true;
}

GPTQ_INLINE bool safetensors_header_reader::end_object() {
    if (state_ == state::entry) {
        const auto& e = entry();
        if (!e.type || !e.shape || !e.offsets) fail("dtype, shape or data_offsets is missing");
        if (e.offsets->size() != 2) fail("data_offsets must be two numbers");
    }
    state_ = state_ == state::top ? state::end : state::top;
    return true;
}

GPTQ_INLINE bool safetensors_header_reader::number_integer(std::int64_t value) {
    fail(std::to_string(value) + " where only non-negative integers belong");
}

GPTQ_INLINE bool safetensors_header_reader::number_float(double, const std::string& text) {
    fail(text + " where only non-negative integers of 64 bits belong");
}

GPTQ_INLINE bool safetensors_header_reader::top_key(const std::string& name) {
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

GPTQ_INLINE bool safetensors_header_reader::entry_key(const std::string& name) {
    const auto expect_once = [&](bool seen, state next) {
        if (seen) fail(in_quotes(name) + " appears twice");
        state_ = next;
        return true;
    };
    if (name == "dtype") return expect_once(entry().type.has_value(), state::dtype);
    if (name == "shape") return expect_once(entry().shape.has_value(), state::shape_value);
    if (name == "data_offsets") return expect_once(entry().offsets.has_value(), state::offsets_value);
    fail("unknown field " + in_quotes(name));
}

GPTQ_INLINE bool safetensors_header_reader::begin_array(std::optional<std::vector<std::size_t>>& numbers, state next) {
    numbers.emplace();
    state_ = next;
    return true;
}

GPTQ_INLINE void safetensors_header_reader::fail(const std::string& what) const {
    const bool in_entry = state_ != state::start && state_ != state::top && state_ != state::end && !entries.empty() &&
                          state_ != state::metadata && state_ != state::metadata_value &&
                          state_ != state::metadata_text;
    throw format_error(file_ + ": not a valid safetensors header: " +
                       (in_entry ? "tensor " + in_quotes(entries.back().name) + ": " : std::string()) + what);
}

}  // namespace detail
GPTQ_INLINE safetensors_file::safetensors_file(const std::filesystem::path& path) : path_(path) {
    refuse_foreign_content(path);
    const std::string name = path.string();
    detail::safetensors_header_reader header(name);
    const auto data = parse_header(std::make_shared<const input_file>(path), name, header);
    metadata_ = std::move(header.metadata);
    tensors_.reserve(header.entries.size());
    for (auto& entry : header.entries) tensors_.push_back(checked_tensor(name, std::move(entry), data));
    check_cover(name, data);
    for (const auto& tensor : tensors_)
        if (!by_name_.emplace(tensor.name, &tensor).second)
            throw format_error(name + ": tensor " + in_quotes(tensor.name) + " appears twice");
}

GPTQ_INLINE const tensor_info* safetensors_file::find(std::string_view name) const {
    const auto found = by_name_.find(name);
    return found == by_name_.end() ? nullptr : found->second;
}

GPTQ_INLINE file_bytes safetensors_file::parse_header(const std::shared_ptr<const input_file>& file,
                                                      const std::string& name,
                                                      detail::safetensors_header_reader& header) {
    if (file->size() < 8)
        throw format_error(name + ": has " + std::to_string(file->size()) +
                           " bytes; a safetensors file has at least 8 (truncated?)");
    std::array<std::byte, 8> digits{};
    file->read_at(0, digits);
    const std::size_t behind = file->size() - digits.size();
    std::uint64_t length = 0;
    for (std::size_t i = 0; i < 8; ++i) length |= std::to_integer<std::uint64_t>(digits[i]) << (8 * i);
    if (length > max_safetensors_header)
        throw format_error(name + ": claims a header of " + std::to_string(length) + " bytes; the format allows " +
                           std::to_string(max_safetensors_header) + " (not a safetensors file?)");
    if (length > behind)
        throw format_error(name + ": claims a header of " + std::to_string(length) + " bytes, but only " +
                           std::to_string(behind) + " follow (truncated?)");
    std::string text(static_cast<std::size_t>(length), '\0');
    file->read_at(digits.size(), std::as_writable_bytes(std::span(text)));
    if (!text.starts_with('{')) throw format_error(name + ": the safetensors header does not begin with '{'");
    nlohmann::json::sax_parse(text.begin(), text.end(), &header);
    return {file, digits.size() + text.size(), behind - text.size()};
}

GPTQ_INLINE tensor_info safetensors_file::checked_tensor(const std::string& file, detail::safetensors_entry entry,
                                                         const file_bytes& data) {
    const std::size_t begin = (*entry.offsets)[0];
    const std::size_t end = (*entry.offsets)[1];
    const auto describe = [&] {
        return file + ": tensor " + in_quotes(entry.name) + " " + std::string(dtype_name(*entry.type)) +
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

GPTQ_INLINE void safetensors_file::check_cover(const std::string& file, const file_bytes& data) {
    std::sort(tensors_.begin(), tensors_.end(), [](const tensor_info& a, const tensor_info& b) {
        if (a.bytes.begin() != b.bytes.begin()) return a.bytes.begin() < b.bytes.begin();
        return a.bytes.size() < b.bytes.size();
    });
    std::size_t position = 0;
    for (const auto& tensor : tensors_) {
        const std::size_t begin = tensor.bytes.begin() - data.begin();
        if (begin != position)
            throw format_error(file + ": tensor " + in_quotes(tensor.name) + " begins at byte " +
                               std::to_string(begin) + " of the data, where " + std::to_string(position) +
                               " was expected: " + (begin < position ? "tensors overlap" : "there is a hole"));
        position += tensor.bytes.size();
    }
    if (position != data.size())
        throw format_error(file + ": its tensors cover " + std::to_string(position) + " bytes of data, but " +
                           std::to_string(data.size()) + " are there");
}

}  // namespace gptq::io
