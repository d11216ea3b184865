// The bodies of <gptq/model/tokenizer_json.hpp>.
#pragma once

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include <gptq/compiled.hpp>
#include <gptq/error.hpp>
#include <gptq/io/foreign_files.hpp>
#include <gptq/model/tokenizer_json.hpp>
#include <gptq/quote.hpp>

namespace gptq::model {
namespace detail {

GPTQ_INLINE json_node json_node::operator[](const char* key) const {
    static const nlohmann::json missing;
    if (!value_->is_object()) fail("expected an object");
    const auto found = value_->find(key);
    return {found == value_->end() ? missing : *found, place(key)};
}

GPTQ_INLINE json_list json_node::items() const {
    if (!value_->is_array()) fail("expected an array");
    return json_list(*this);
}

GPTQ_INLINE std::string json_node::text() const {
    if (!value_->is_string()) fail("expected a string");
    return value_->get<std::string>();
}

GPTQ_INLINE std::optional<std::string> json_node::optional_text() const {
    return is_null() ? std::nullopt : std::optional<std::string>(text());
}

GPTQ_INLINE bool json_node::flag(bool otherwise) const {
    if (is_null()) return otherwise;
    if (!value_->is_boolean()) fail("expected true or false");
    return value_->get<bool>();
}

GPTQ_INLINE std::int32_t json_node::number(std::int32_t limit) const {
    if (!value_->is_number_unsigned() || value_->get<std::uint64_t>() >= static_cast<std::uint64_t>(limit)) {
        fail("expected a whole number from 0 to " + std::to_string(limit - 1));
    }
    return value_->get<std::int32_t>();
}

GPTQ_INLINE void json_node::fail(const std::string& what) const {
    throw format_error(where_ + ": " + what + (is_null() ? ", found nothing" : ", found " + excerpt()));
}

GPTQ_INLINE std::string json_node::excerpt() const {
    if (value_->is_structured()) return std::string("an ") + value_->type_name();
    if (value_->is_string()) return in_quotes(value_->get_ref<const std::string&>());
    return printable(value_->dump(-1, ' ', true, nlohmann::json::error_handler_t::replace));
}

GPTQ_INLINE void require_tokenizer_file(const std::filesystem::path& path) {
    std::error_code code;
    if (!std::filesystem::exists(path, code))
        throw io_error(path.string() + ": cannot open: " + std::generic_category().message(ENOENT) + "; " +
                       io::foreign_tokenizer(path.parent_path()));
    io::refuse_foreign_content(path);
}

}  // namespace detail
}  // namespace gptq::model
