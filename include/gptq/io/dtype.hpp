// The element types of safetensors files: names, sizes.
#pragma once

#include <array>
#include <cstddef>
#include <optional>
#include <string_view>

namespace gptq::io {

/// Element types. The library computes with the first four and reads packed codes from i32 and i64; the others are
/// known so that tensors it has no use for can be carried along.
enum class dtype { f64, f32, f16, bf16, i64, i32, i16, i8, u8, boolean, u64, u32, u16, f8_e4m3, f8_e5m2 };

namespace detail {

struct dtype_entry {
    dtype type;
    std::string_view name;
    std::size_t size;
};

inline constexpr std::array<dtype_entry, 15> dtype_table{{
    {dtype::f64, "F64", 8},
    {dtype::f32, "F32", 4},
    {dtype::f16, "F16", 2},
    {dtype::bf16, "BF16", 2},
    {dtype::i64, "I64", 8},
    {dtype::i32, "I32", 4},
    {dtype::i16, "I16", 2},
    {dtype::i8, "I8", 1},
    {dtype::u8, "U8", 1},
    {dtype::boolean, "BOOL", 1},
    {dtype::u64, "U64", 8},
    {dtype::u32, "U32", 4},
    {dtype::u16, "U16", 2},
    {dtype::f8_e4m3, "F8_E4M3", 1},
    {dtype::f8_e5m2, "F8_E5M2", 1},
}};

/// The table lists the types in the order of the enumeration.
constexpr const dtype_entry& entry_of(dtype type) { return dtype_table[static_cast<std::size_t>(type)]; }

}  // namespace detail

/// Bytes of one element.
constexpr std::size_t dtype_size(dtype type) { return detail::entry_of(type).size; }

/// The type is F64, F32, F16 or BF16: those that weights which are not quantized have.
constexpr bool is_float(dtype type) {
    return type == dtype::f64 || type == dtype::f32 || type == dtype::f16 || type == dtype::bf16;
}

/// The name in a safetensors header: "F32", "BF16", ...
constexpr std::string_view dtype_name(dtype type) { return detail::entry_of(type).name; }

/// The type of that name, or nothing for a name that is not in the table.
constexpr std::optional<dtype> dtype_from_name(std::string_view name) {
    for (const auto& entry : detail::dtype_table)
        if (entry.name == name) return entry.type;
    return std::nullopt;
}

}  // namespace gptq::io
