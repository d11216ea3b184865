// The bodies of <gptq/model/config_values.hpp>.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>

#include <nlohmann/json.hpp>

#include <gptq/compiled.hpp>
#include <gptq/error.hpp>
#include <gptq/model/config_values.hpp>

namespace gptq::model {

GPTQ_INLINE config_values::config_values(const nlohmann::json& object, std::string what)
    : object_(&object), what_(std::move(what)) {
    if (!object.is_object()) throw format_error(what_ + " is not a JSON object");
}

GPTQ_INLINE const nlohmann::json* config_values::find(std::string_view key) const {
    const auto at = object_->find(std::string(key));
    return at == object_->end() || at->is_null() ? nullptr : &*at;
}

GPTQ_INLINE config_values config_values::object(std::string_view key) const {
    return {object_->at(std::string(key)), what_ + ": " + std::string(key)};
}

GPTQ_INLINE std::size_t config_values::size(std::string_view key, std::size_t largest, std::size_t otherwise) const {
    if (find(key) == nullptr && otherwise == 0) fail(key, "is missing");
    return integer(key, 1, largest, otherwise);
}

GPTQ_INLINE std::size_t config_values::count(std::string_view key, std::size_t largest, std::size_t otherwise) const {
    return integer(key, 0, largest, otherwise);
}

GPTQ_INLINE double config_values::positive(std::string_view key, double otherwise) const {
    const nlohmann::json* value = find(key);
    if (value == nullptr) {
        if (otherwise != 0.0) return otherwise;
        fail(key, "is missing");
    }
    const double number = value->is_number() ? value->get<double>() : -1.0;
    if (!(number > 0.0) || !std::isfinite(number)) fail(key, "is " + shown(*value) + ", not a number above 0");
    return number;
}

GPTQ_INLINE bool config_values::flag(std::string_view key, bool otherwise) const {
    const nlohmann::json* value = find(key);
    if (value == nullptr) return otherwise;
    if (!value->is_boolean()) fail(key, "is " + shown(*value) + ", not true or false");
    return value->get<bool>();
}

GPTQ_INLINE std::string config_values::text(std::string_view key, std::string_view otherwise) const {
    const nlohmann::json* value = find(key);
    if (value == nullptr) return std::string(otherwise);
    if (!value->is_string()) fail(key, "is " + shown(*value) + ", not a string");
    return value->get<std::string>();
}

GPTQ_INLINE void config_values::fail(std::string_view key, const std::string& problem) const {
    throw format_error(what_ + ": " + std::string(key) + " " + problem);
}

GPTQ_INLINE void config_values::unsupported(std::string_view key, const std::string& problem) const {
    throw unsupported_error(what_ + ": " + std::string(key) + " " + problem);
}

GPTQ_INLINE std::size_t config_values::integer(std::string_view key, std::int64_t least, std::size_t largest,
                                               std::size_t otherwise) const {
    const nlohmann::json* value = find(key);
    if (value == nullptr) return otherwise;
    if (!value->is_number_integer()) fail(key, "is " + shown(*value) + ", not an integer");
    // Unsigned numbers are told apart, so that none above 2^63 wraps to a small one.
    const bool too_large = value->is_number_unsigned() && value->get<std::uint64_t>() > largest;
    if (too_large || value->get<std::int64_t>() < least)
        fail(key, "is " + shown(*value) + ", outside " + std::to_string(least) + " to " + std::to_string(largest));
    return value->get<std::size_t>();
}

GPTQ_INLINE std::string config_values::shown(const nlohmann::json& value) {
    const std::string whole = value.dump(-1, ' ', true, nlohmann::json::error_handler_t::replace);
    return whole.size() <= 40 ? whole : whole.substr(0, 40) + "...";
}

}  // namespace gptq::model
