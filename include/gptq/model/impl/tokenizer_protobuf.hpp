// The bodies of <gptq/model/tokenizer_protobuf.hpp>.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include <gptq/compiled.hpp>
#include <gptq/error.hpp>
#include <gptq/model/tokenizer_protobuf.hpp>

namespace gptq::model {
namespace detail {

GPTQ_INLINE std::optional<protobuf_field> protobuf_reader::next() {
    if (rest_.empty()) return std::nullopt;
    const std::uint64_t key = varint();
    const std::uint64_t number = key >> 3;
    if (number == 0 || number >= 1U << 29) fail("a field has no number");
    const auto field = [&](std::uint64_t value, std::string_view bytes, bool is_number) {
        return protobuf_field{static_cast<std::uint32_t>(number), value, bytes, is_number};
    };
    switch (key & 7) {
        case 0: return field(varint(), {}, true);
        case 1: return field(little_endian(8), {}, true);
        case 2: return field(0, take(varint()), false);
        case 5: return field(little_endian(4), {}, true);
        default: fail("a field has an unknown type");
    }
}

GPTQ_INLINE std::uint64_t protobuf_reader::varint() {
    std::uint64_t out = 0;
    for (unsigned shift = 0; shift < 64; shift += 7) {
        const auto byte = static_cast<unsigned char>(take(1).front());
        out |= std::uint64_t{byte & 0x7FU} << shift;
        if (byte < 0x80) return out;
    }
    fail("a number has too many bytes");
}

GPTQ_INLINE std::uint64_t protobuf_reader::little_endian(std::size_t size) {
    const std::string_view bytes = take(size);
    std::uint64_t out = 0;
    for (std::size_t i = size; i-- > 0;) out = out << 8 | static_cast<unsigned char>(bytes[i]);
    return out;
}

GPTQ_INLINE std::string_view protobuf_reader::take(std::uint64_t size) {
    if (size > rest_.size()) fail("a field reaches beyond the end");
    const auto out = rest_.substr(0, static_cast<std::size_t>(size));
    rest_.remove_prefix(out.size());
    return out;
}

GPTQ_INLINE std::string_view protobuf_reader::bytes_of(const protobuf_field& field) const {
    if (field.is_number) fail("field " + std::to_string(field.number) + " is a number");
    return field.bytes;
}

GPTQ_INLINE std::uint64_t protobuf_reader::number_of(const protobuf_field& field) const {
    if (!field.is_number) fail("field " + std::to_string(field.number) + " is no number");
    return field.value;
}

GPTQ_INLINE void protobuf_reader::fail(const std::string& what) const {
    throw format_error(where_ + ": damaged: " + what + "; download the file again");
}

}  // namespace detail
}  // namespace gptq::model
