// The bodies of <gptq/io/gguf.hpp>.
#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <limits>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <unordered_set>
#include <utility>
#include <vector>

#include <gptq/compiled.hpp>
#include <gptq/error.hpp>
#include <gptq/io/file.hpp>
#include <gptq/io/folder_writer.hpp>
#include <gptq/io/gguf.hpp>
#include <gptq/layouts/ggml_blocks.hpp>
#include <gptq/quote.hpp>

namespace gptq::io {
namespace detail {

/// The types of metadata.
enum class gguf_kind : std::uint32_t { u8, i8, u16, i16, u32, i32, f32, boolean, text, array, u64, i64, f64 };

inline constexpr std::string_view gguf_magic = "GGUF";
inline constexpr std::size_t max_gguf_rank = 4;

/// Bytes of a value whose type has a fixed size; 0 for texts, arrays and what is no type.
inline std::size_t gguf_size(std::uint32_t kind) {
    static constexpr std::size_t sizes[] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
    return kind < std::size(sizes) ? sizes[kind] : 0;
}

/// Takes values from the front of a file. Throws format_error where the file ends too early.
class gguf_reader {
 public:
    explicit gguf_reader(const input_file& file) : file_(file) {}

    std::size_t position() const { return position_; }

    /// Goes on behind so many bytes, and returns where they begin.
    std::size_t skip(std::uint64_t count) {
        if (count > left()) fail("the file ends too early");
        return std::exchange(position_, position_ + static_cast<std::size_t>(count));
    }

    /// The next bytes, as many as `out` has.
    void take(std::span<std::byte> out) {
        const std::size_t begin = skip(out.size());
        if (out.size() > window) return file_.read_at(begin, out);
        if (begin < window_begin_ || begin + out.size() > window_begin_ + window_.size()) {
            window_begin_ = begin;
            window_.resize(std::min(window, file_.size() - begin));
            file_.read_at(begin, window_);
        }
        std::copy_n(window_.begin() + static_cast<std::ptrdiff_t>(begin - window_begin_), out.size(), out.begin());
    }

    template <class T>
    T number() {
        T value{};
        take(std::as_writable_bytes(std::span(&value, 1)));
        return value;
    }

    std::string text(std::size_t max_bytes) {
        const auto length = number<std::uint64_t>();
        if (length > max_bytes) fail("a name of " + std::to_string(length) + " bytes");
        std::string characters(static_cast<std::size_t>(length), '\0');
        take(std::as_writable_bytes(std::span(characters)));
        return characters;
    }

    /// The bytes of a value of that type.
    std::vector<std::byte> value(std::uint32_t kind) {
        const std::size_t begin = position_;
        skip_value(kind);
        std::vector<std::byte> bytes(position_ - begin);
        file_.read_at(begin, bytes);
        return bytes;
    }

    /// How many entries of at least `least` bytes there can be. Throws for a number that the file has no room for.
    std::size_t count(std::uint64_t claimed, std::size_t least) const {
        if (claimed > left() / least)
            fail("has no room for the " + std::to_string(claimed) + " entries that it claims");
        return static_cast<std::size_t>(claimed);
    }

    [[noreturn]] void fail(const std::string& what) const {
        throw format_error(file_.path().string() + ": byte " + std::to_string(position_) + ": " + what);
    }

 private:
    static constexpr std::size_t window = std::size_t{1} << 16;

    std::size_t left() const { return file_.size() - position_; }

    void skip_value(std::uint32_t kind) {
        if (const std::size_t size = gguf_size(kind); size != 0) {
            skip(size);
        } else if (kind == static_cast<std::uint32_t>(gguf_kind::text)) {
            skip(number<std::uint64_t>());
        } else if (kind == static_cast<std::uint32_t>(gguf_kind::array)) {
            skip_array();
        } else {
            fail("metadata of the unknown type " + std::to_string(kind));
        }
    }

    void skip_array() {
        const auto kind = number<std::uint32_t>();
        const std::size_t size = gguf_size(kind);
        const std::size_t elements = count(number<std::uint64_t>(), size != 0 ? size : 8);
        if (size != 0) return static_cast<void>(skip(elements * size));
        if (kind != static_cast<std::uint32_t>(gguf_kind::text)) fail("an array of arrays");
        for (std::size_t i = 0; i < elements; ++i) skip_value(kind);
    }

    const input_file& file_;
    std::size_t position_ = 0;
    std::vector<std::byte> window_;  // of the file, from window_begin_ on
    std::size_t window_begin_ = 0;
};

/// A tensor as the header has it; its bytes are found once the data's beginning is known.
struct gguf_place {
    gguf_tensor tensor;
    std::uint64_t offset;
};

inline gguf_place read_gguf_place(gguf_reader& in) {
    gguf_place place{{in.text(4096), {}, {}, {}}, 0};
    const auto rank = in.number<std::uint32_t>();
    if (rank == 0 || rank > max_gguf_rank) in.fail("a tensor of " + std::to_string(rank) + " dimensions");
    for (std::uint32_t i = 0; i < rank; ++i)
        place.tensor.shape.insert(place.tensor.shape.begin(), static_cast<std::size_t>(in.number<std::uint64_t>()));
    place.tensor.type = static_cast<gguf_type>(in.number<std::uint32_t>());
    place.offset = in.number<std::uint64_t>();
    return place;
}

/// Appends numbers and texts as the file has them.
class gguf_bytes_writer {
 public:
    template <class T>
    void number(T value) {
        const auto* begin = reinterpret_cast<const std::byte*>(&value);
        bytes.insert(bytes.end(), begin, begin + sizeof value);
    }
    void raw(std::span<const std::byte> more) { bytes.insert(bytes.end(), more.begin(), more.end()); }
    void text(std::string_view t) {
        number(std::uint64_t{t.size()});
        raw(bytes_of(t));
    }
    void entry(std::string_view key, std::uint32_t value) {
        text(key);
        number(static_cast<std::uint32_t>(gguf_kind::u32));
        number(value);
    }

    std::vector<std::byte> bytes;
};

/// Entries that the writer gives a value of its own.
inline bool is_written_anew(std::string_view key) {
    return key == "general.file_type" || key == "general.quantization_version" || key == "general.alignment";
}

GPTQ_INLINE std::vector<std::byte> gguf_header(const gguf_file& base, std::uint32_t file_type,
                                               std::span<const gguf_output> tensors) {
    gguf_bytes_writer out;
    std::uint64_t kept = 0;
    for (const gguf_entry& entry : base.metadata()) kept += is_written_anew(entry.key) ? 0 : 1;
    out.raw(bytes_of(gguf_magic));
    out.number(std::uint32_t{3});
    out.number(std::uint64_t{tensors.size()});
    out.number(kept + 2);
    for (const gguf_entry& entry : base.metadata()) {
        if (is_written_anew(entry.key)) continue;
        out.text(entry.key);
        out.number(entry.type);
        out.raw(entry.value);
    }
    out.entry("general.file_type", file_type);
    out.entry("general.quantization_version", 2);
    std::uint64_t offset = 0;
    for (const gguf_output& tensor : tensors) {
        out.text(tensor.name);
        out.number(static_cast<std::uint32_t>(tensor.shape.size()));
        for (std::size_t i = tensor.shape.size(); i-- > 0;) out.number(std::uint64_t{tensor.shape[i]});
        out.number(static_cast<std::uint32_t>(tensor.type));
        out.number(offset);
        offset += aligned(tensor.bytes, gguf_alignment);
    }
    out.bytes.resize(aligned(out.bytes.size(), gguf_alignment));
    return std::move(out.bytes);
}

GPTQ_INLINE unfinished_file::unfinished_file(const std::filesystem::path& path)
    : path_(path), file_([&] {
          refuse_existing(path);
          return path.string() + ".partial";
      }()) {}

GPTQ_INLINE unfinished_file::~unfinished_file() {
    std::error_code ignored;
    if (!finished_) std::filesystem::remove(file_.path(), ignored);
}

GPTQ_INLINE void unfinished_file::finish() {
    file_.close();
    replace_file(file_.path(), path_);
    finished_ = true;
}

}  // namespace detail

GPTQ_INLINE std::optional<std::size_t> gguf_bytes(gguf_type type, std::span<const std::size_t> shape) {
    const auto blocks = [&]() -> std::pair<std::size_t, std::size_t> {  // weights and bytes of one
        if (type == gguf_type::f32) return {1, 4};
        if (type == gguf_type::f16 || type == gguf_type::bf16) return {1, 2};
        const layout::ggml_type* found = layout::find_ggml_type(static_cast<std::uint32_t>(type));
        return found == nullptr ? std::pair<std::size_t, std::size_t>{0, 0} : std::pair{found->weights, found->bytes};
    }();
    if (blocks.first == 0 || shape.empty() || shape.back() % blocks.first != 0) return std::nullopt;
    std::size_t bytes = blocks.second;
    for (std::size_t i = 0; i < shape.size(); ++i) {
        const std::size_t extent = i + 1 == shape.size() ? shape[i] / blocks.first : shape[i];
        if (extent != 0 && bytes > std::numeric_limits<std::size_t>::max() / extent) return std::nullopt;
        bytes *= extent;
    }
    return bytes;
}

GPTQ_INLINE gguf_file::gguf_file(const std::filesystem::path& path) : path_(path) {
    static_assert(std::endian::native == std::endian::little);
    const auto file = std::make_shared<const input_file>(path);
    detail::gguf_reader in(*file);
    std::array<char, detail::gguf_magic.size()> magic{};
    in.take(std::as_writable_bytes(std::span(magic)));
    if (std::string_view(magic.data(), magic.size()) != detail::gguf_magic)
        throw format_error(path.string() + ": is no GGUF file");
    if (const auto version = in.number<std::uint32_t>(); version != 2 && version != 3)
        throw unsupported_error(path.string() + ": is a GGUF file of version " + std::to_string(version) +
                                "; versions 2 and 3 are read");
    const auto tensors = in.number<std::uint64_t>(), entries = in.number<std::uint64_t>();
    std::unordered_set<std::string> seen;
    for (std::size_t i = 0, n = in.count(entries, 13); i < n; ++i) {
        gguf_entry entry;
        entry.key = in.text(65535);
        if (!seen.insert(entry.key).second) in.fail("a second entry of the same key");
        entry.type = in.number<std::uint32_t>();
        entry.value = in.value(entry.type);
        metadata_.push_back(std::move(entry));
    }
    seen.clear();
    std::vector<detail::gguf_place> places;
    for (std::size_t i = 0, n = in.count(tensors, 32); i < n; ++i) {
        places.push_back(detail::read_gguf_place(in));
        if (!seen.insert(places.back().tensor.name).second) in.fail("a second tensor of the same name");
    }
    const auto alignment = number("general.alignment").value_or(detail::gguf_alignment);
    if (alignment < 8 || alignment > 65536 || alignment % 8 != 0) in.fail("an alignment that none is");
    const std::size_t begin = detail::aligned(in.position(), static_cast<std::size_t>(alignment));
    const std::size_t size = file->size();
    std::size_t covered = begin;
    for (detail::gguf_place& place : places) {
        const auto bytes = gguf_bytes(place.tensor.type, place.tensor.shape);
        const std::string where = path.string() + ": tensor " + in_quotes(place.tensor.name);
        if (!bytes)
            throw unsupported_error(where + ": has the type " +
                                    std::to_string(static_cast<std::uint32_t>(place.tensor.type)) +
                                    ", which is not read, or a shape that its type does not have");
        if (begin > size || place.offset > size - begin || *bytes > size - begin - place.offset)
            throw format_error(where + ": reaches beyond the end of the file");
        if (*bytes > size - covered) throw format_error(where + ": overlaps with another one");
        covered += *bytes;
        place.tensor.bytes = {file, begin + static_cast<std::size_t>(place.offset), *bytes};
        tensors_.push_back(std::move(place.tensor));
    }
}

GPTQ_INLINE const gguf_entry* gguf_file::find(std::string_view key) const {
    for (const gguf_entry& entry : metadata_)
        if (entry.key == key) return &entry;
    return nullptr;
}

GPTQ_INLINE std::string gguf_file::text(std::string_view key) const {
    const gguf_entry* entry = find(key);
    if (entry == nullptr || entry->type != static_cast<std::uint32_t>(detail::gguf_kind::text))
        throw format_error(path_.string() + ": has no text " + in_quotes(key));
    const auto characters = std::span(entry->value).subspan(sizeof(std::uint64_t));
    return {reinterpret_cast<const char*>(characters.data()), characters.size()};
}

GPTQ_INLINE std::optional<std::uint64_t> gguf_file::number(std::string_view key) const {
    using detail::gguf_kind;
    const gguf_entry* entry = find(key);
    if (entry == nullptr) return std::nullopt;
    const auto kind = static_cast<gguf_kind>(entry->type);
    const bool whole = kind != gguf_kind::f32 && kind != gguf_kind::f64 && kind != gguf_kind::boolean;
    if (!whole || detail::gguf_size(entry->type) == 0)
        throw format_error(path_.string() + ": " + in_quotes(key) + " is no whole number");
    std::uint64_t value = 0;
    std::memcpy(&value, entry->value.data(), entry->value.size());
    return value;
}

GPTQ_INLINE std::optional<double> gguf_file::real(std::string_view key) const {
    using detail::gguf_kind;
    const gguf_entry* entry = find(key);
    if (entry == nullptr) return std::nullopt;
    const auto kind = static_cast<gguf_kind>(entry->type);
    const auto as = [&]<class T>(T value) {
        std::memcpy(&value, entry->value.data(), sizeof value);
        return static_cast<double>(value);
    };
    if (kind == gguf_kind::f32) return as(float{});
    if (kind == gguf_kind::f64) return as(double{});
    if (kind == gguf_kind::boolean) return as(std::uint8_t{});
    return static_cast<double>(number(key).value());
}

GPTQ_INLINE std::span<const std::byte> gguf_file::elements(std::string_view key, std::size_t size,
                                                           std::uint64_t& count) const {
    const gguf_entry* entry = find(key);
    std::uint32_t kind = 0;
    const bool list = entry != nullptr && entry->type == static_cast<std::uint32_t>(detail::gguf_kind::array);
    if (list) std::memcpy(&kind, entry->value.data(), sizeof kind);
    const bool right =
        size != 0 ? detail::gguf_size(kind) == size : kind == static_cast<std::uint32_t>(detail::gguf_kind::text);
    if (!list || !right) throw format_error(path_.string() + ": has no list " + in_quotes(key) + " of the kind needed");
    std::memcpy(&count, entry->value.data() + sizeof kind, sizeof count);
    return std::span(entry->value).subspan(sizeof kind + sizeof count);
}

GPTQ_INLINE std::vector<std::string> gguf_file::texts(std::string_view key) const {
    std::uint64_t count = 0;
    auto rest = elements(key, 0, count);
    std::vector<std::string> out;
    for (std::uint64_t i = 0, length = 0; i < count; ++i) {  // as the constructor has walked through them
        std::memcpy(&length, rest.data(), sizeof length);
        const auto text = rest.subspan(sizeof length, static_cast<std::size_t>(length));
        out.emplace_back(reinterpret_cast<const char*>(text.data()), text.size());
        rest = rest.subspan(sizeof length + text.size());
    }
    return out;
}

}  // namespace gptq::io
