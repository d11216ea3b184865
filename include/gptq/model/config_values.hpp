// Reads numbers, flags and names out of a config.json that may say anything.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>

#include <nlohmann/json.hpp>

#include <gptq/error.hpp>

namespace gptq::model {

/// One JSON object whose members are read with their ranges checked. A member that is null counts as absent.
/// Throws format_error naming the file's object and the key. The object must outlive the reader.
class config_values {
 public:
    /// `what` names the object in messages, e.g. "config.json".
    config_values(const nlohmann::json& object, std::string what) : object_(&object), what_(std::move(what)) {
        if (!object.is_object()) throw format_error(what_ + " is not a JSON object");
    }

    /// The key is there, even if null.
    bool has_key(std::string_view key) const { return object_->find(std::string(key)) != object_->end(); }

    /// The member, or nullptr where it is absent or null.
    const nlohmann::json* find(std::string_view key) const {
        const auto at = object_->find(std::string(key));
        return at == object_->end() || at->is_null() ? nullptr : &*at;
    }

    /// The member as an object of its own; `key` must be there.
    config_values object(std::string_view key) const {
        return {object_->at(std::string(key)), what_ + ": " + std::string(key)};
    }

    /// An integer from 1 to `largest`; `otherwise` where the key is absent, 0 for "must be there".
    std::size_t size(std::string_view key, std::size_t largest, std::size_t otherwise = 0) const {
        if (find(key) == nullptr && otherwise == 0) fail(key, "is missing");
        return integer(key, 1, largest, otherwise);
    }

    /// An integer from 0 to `largest`; `otherwise` where the key is absent.
    std::size_t count(std::string_view key, std::size_t largest, std::size_t otherwise) const {
        return integer(key, 0, largest, otherwise);
    }

    /// A finite number above 0; `otherwise` where the key is absent, 0 for "must be there".
    double positive(std::string_view key, double otherwise = 0.0) const {
        const nlohmann::json* value = find(key);
        if (value == nullptr) {
            if (otherwise != 0.0) return otherwise;
            fail(key, "is missing");
        }
        const double number = value->is_number() ? value->get<double>() : -1.0;
        if (!(number > 0.0) || !std::isfinite(number)) fail(key, "is " + shown(*value) + ", not a number above 0");
        return number;
    }

    bool flag(std::string_view key, bool otherwise) const {
        const nlohmann::json* value = find(key);
        if (value == nullptr) return otherwise;
        if (!value->is_boolean()) fail(key, "is " + shown(*value) + ", not true or false");
        return value->get<bool>();
    }

    std::string text(std::string_view key, std::string_view otherwise) const {
        const nlohmann::json* value = find(key);
        if (value == nullptr) return std::string(otherwise);
        if (!value->is_string()) fail(key, "is " + shown(*value) + ", not a string");
        return value->get<std::string>();
    }

    [[noreturn]] void fail(std::string_view key, const std::string& problem) const {
        throw format_error(what_ + ": " + std::string(key) + " " + problem);
    }

    [[noreturn]] void unsupported(std::string_view key, const std::string& problem) const {
        throw unsupported_error(what_ + ": " + std::string(key) + " " + problem);
    }

    const std::string& what() const { return what_; }

 private:
    std::size_t integer(std::string_view key, std::int64_t least, std::size_t largest, std::size_t otherwise) const {
        const nlohmann::json* value = find(key);
        if (value == nullptr) return otherwise;
        if (!value->is_number_integer()) fail(key, "is " + shown(*value) + ", not an integer");
        // Unsigned numbers are told apart, so that none above 2^63 wraps to a small one.
        const bool too_large = value->is_number_unsigned() && value->get<std::uint64_t>() > largest;
        if (too_large || value->get<std::int64_t>() < least)
            fail(key, "is " + shown(*value) + ", outside " + std::to_string(least) + " to " + std::to_string(largest));
        return value->get<std::size_t>();
    }

    /// The value as JSON, short enough for a message whatever the file holds.
    static std::string shown(const nlohmann::json& value) {
        const std::string whole = value.dump(-1, ' ', true, nlohmann::json::error_handler_t::replace);
        return whole.size() <= 40 ? whole : whole.substr(0, 40) + "...";
    }

    const nlohmann::json* object_;
    std::string what_;
};

}  // namespace gptq::model
