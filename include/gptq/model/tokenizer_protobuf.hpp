// Messages of Protocol Buffers, field by field and with checked bounds: what SentencePiece's file is made of.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace gptq::model::detail {

/// One field of a message of Protocol Buffers.
struct protobuf_field {
    std::uint32_t number;
    std::uint64_t value;     ///< Of a number; a float's bits.
    std::string_view bytes;  ///< Of a string or a message.
    bool is_number;          ///< It has a value and no bytes.
};

/// The fields of a message in order. Throws format_error that begins with `where` if one reaches beyond the end.
class protobuf_reader {
 public:
    protobuf_reader(std::string_view message, const std::string& where) : rest_(message), where_(where) {}

    std::optional<protobuf_field> next();

    /// What a field holds; refuses one of the other kind.
    std::string_view bytes_of(const protobuf_field& field) const;
    std::uint64_t number_of(const protobuf_field& field) const;

 private:
    [[noreturn]] void fail(const std::string& what) const;

    std::uint64_t varint();

    std::uint64_t little_endian(std::size_t size);

    std::string_view take(std::uint64_t size);

    std::string_view rest_;
    const std::string& where_;
};

}  // namespace gptq::model::detail

#ifndef GPTQ_COMPILED
#include <gptq/model/impl/tokenizer_protobuf.hpp>
#endif
