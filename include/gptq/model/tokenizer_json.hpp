// A JSON value that knows where in its file it stands, so that every complaint about a file names the place.
#pragma once

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include <gptq/error.hpp>
#include <gptq/io/foreign_files.hpp>

namespace gptq::model::detail {

/// Refers to a value; the document must outlive it. Accessors throw format_error if the file has something else there.
class json_node {
 public:
    /// `where` is the file's name, to which children add their place: "tokenizer.json: model.vocab".
    json_node(const nlohmann::json& value, std::string where) : value_(&value), where_(std::move(where)) {}

    const nlohmann::json& value() const { return *value_; }
    const std::string& where() const { return where_; }
    bool is_null() const { return value_->is_null(); }

    /// The value under `key`, null where it is missing.
    json_node operator[](const char* key) const {
        static const nlohmann::json missing;
        if (!value_->is_object()) fail("expected an object");
        const auto found = value_->find(key);
        return {found == value_->end() ? missing : *found, place(key)};
    }

    /// The elements of an array.
    std::vector<json_node> items() const {
        if (!value_->is_array()) fail("expected an array");
        std::vector<json_node> out;
        out.reserve(value_->size());
        for (std::size_t i = 0; i < value_->size(); ++i) {
            out.emplace_back((*value_)[i], where_ + "[" + std::to_string(i) + "]");
        }
        return out;
    }

    std::string text() const {
        if (!value_->is_string()) fail("expected a string");
        return value_->get<std::string>();
    }

    /// The text, or nothing where the value is null or missing.
    std::optional<std::string> optional_text() const {
        return is_null() ? std::nullopt : std::optional<std::string>(text());
    }

    /// A boolean; `otherwise` where the value is null or missing.
    bool flag(bool otherwise) const {
        if (is_null()) return otherwise;
        if (!value_->is_boolean()) fail("expected true or false");
        return value_->get<bool>();
    }

    /// A whole number in [0, limit).
    std::int32_t number(std::int32_t limit) const {
        if (!value_->is_number_unsigned() || value_->get<std::uint64_t>() >= static_cast<std::uint64_t>(limit)) {
            fail("expected a whole number from 0 to " + std::to_string(limit - 1));
        }
        return value_->get<std::int32_t>();
    }

    /// For a file that is not what it claims to be.
    [[noreturn]] void fail(const std::string& what) const {
        throw format_error(where_ + ": " + what + (is_null() ? ", found nothing" : ", found " + excerpt()));
    }

    /// For a well-formed file that asks for something the library does not do.
    [[noreturn]] void refuse(const std::string& what) const { throw unsupported_error(where_ + ": " + what); }

 private:
    std::string place(const char* key) const { return where_ + (where_.ends_with(".json") ? ": " : ".") + key; }

    std::string excerpt() const {
        if (value_->is_structured()) return std::string("an ") + value_->type_name();
        const std::string text = value_->dump(-1, ' ', true);
        return text.size() <= 60 ? text : text.substr(0, 60) + "...";
    }

    const nlohmann::json* value_;
    std::string where_;
};

/// The parsed file; io_error if it cannot be read, format_error with the position if it is not JSON.
inline nlohmann::json read_json(const std::filesystem::path& path) {
    std::ifstream file(path, std::ios::binary);
    if (!file) {
        const std::string reason = path.string() + ": cannot open: " + std::generic_category().message(errno);
        const bool main_file = path.filename() == "tokenizer.json";
        throw io_error(reason + (main_file ? "; " + io::foreign_tokenizer(path.parent_path()) : std::string()));
    }
    io::refuse_foreign_content(path);
    const std::string text{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
    if (file.bad()) throw io_error(path.string() + ": cannot read");
    try {
        return nlohmann::json::parse(text);
    } catch (const nlohmann::json::exception& problem) {
        throw format_error(path.string() + ": not valid JSON: " + problem.what());
    }
}

}  // namespace gptq::model::detail
