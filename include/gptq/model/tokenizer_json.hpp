// A JSON value that knows where in its file it stands, so that every complaint about a file names the place.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <utility>

#include <nlohmann/json.hpp>

#include <gptq/error.hpp>

namespace gptq::model::detail {

/// Sequences of steps and classes of characters may contain their like; no real file nests them this deep.
inline constexpr int max_nesting = 8;

class json_list;

/// Refers to a value; the document must outlive it. Accessors throw format_error if the file has something else there.
class json_node {
 public:
    /// `where` is the file's name, to which children add their place: "tokenizer.json: model.vocab".
    json_node(const nlohmann::json& value, std::string where) : value_(&value), where_(std::move(where)) {}

    const nlohmann::json& value() const { return *value_; }
    const std::string& where() const { return where_; }
    bool is_null() const { return value_->is_null(); }

    /// The value under `key`, null where it is missing.
    json_node operator[](const char* key) const;

    /// The elements of an array.
    json_list items() const;

    std::string text() const;

    /// The text, or nothing where the value is null or missing.
    std::optional<std::string> optional_text() const;

    /// A boolean; `otherwise` where the value is null or missing.
    bool flag(bool otherwise) const;

    /// A whole number in [0, limit).
    std::int32_t number(std::int32_t limit) const;

    /// For a file that is not what it claims to be.
    [[noreturn]] void fail(const std::string& what) const;

    /// For a well-formed file that asks for something the library does not do.
    [[noreturn]] void refuse(const std::string& what) const { throw unsupported_error(where_ + ": " + what); }

 private:
    std::string place(const char* key) const { return where_ + (is_file() ? ": " : ".") + key; }

    bool is_file() const {
        return where_.ends_with(".json") || where_.ends_with("tokenizer.model") || where_.ends_with(".gguf");
    }

    std::string excerpt() const;

    const nlohmann::json* value_;
    std::string where_;
};

/// The elements of an array, each made when it is asked for: a long list takes no memory besides the document's.
class json_list {
 public:
    explicit json_list(json_node array) : array_(std::move(array)) {}

    std::size_t size() const { return array_.value().size(); }
    bool empty() const { return size() == 0; }
    json_node operator[](std::size_t index) const {
        return {array_.value()[index], array_.where() + "[" + std::to_string(index) + "]"};
    }
    json_node front() const { return (*this)[0]; }

    /// For loops over ranges.
    struct iterator {
        const json_list* list;
        std::size_t index;
        json_node operator*() const { return (*list)[index]; }
        iterator& operator++() { return ++index, *this; }
        bool operator==(const iterator&) const = default;
    };
    iterator begin() const { return {this, 0}; }
    iterator end() const { return {this, size()}; }

 private:
    json_node array_;
};

/// Throws io_error, saying what to do, where a tokenizer's file is missing, and format_error where something else is in
/// its place.
void require_tokenizer_file(const std::filesystem::path& path);

}  // namespace gptq::model::detail

#ifndef GPTQ_COMPILED
#include <gptq/model/impl/tokenizer_json.hpp>
#endif
