// Reads numbers, flags and names out of a config.json that may say anything.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include <nlohmann/json.hpp>

namespace gptq::model {

/// One JSON object whose members are read with their ranges checked. A member that is null counts as absent.
/// Throws format_error naming the file's object and the key. The object must outlive the reader.
class config_values {
 public:
    /// `what` names the object in messages, e.g. "config.json".
    config_values(const nlohmann::json& object, std::string what);

    /// The key is there, even if null.
    bool has_key(std::string_view key) const { return object_->find(std::string(key)) != object_->end(); }

    /// The member, or nullptr where it is absent or null.
    const nlohmann::json* find(std::string_view key) const;

    /// The member as an object of its own; `key` must be there.
    config_values object(std::string_view key) const;

    /// An integer from 1 to `largest`; `otherwise` where the key is absent, 0 for "must be there".
    std::size_t size(std::string_view key, std::size_t largest, std::size_t otherwise = 0) const;

    /// An integer from 0 to `largest`; `otherwise` where the key is absent.
    std::size_t count(std::string_view key, std::size_t largest, std::size_t otherwise) const;

    /// A finite number above 0; `otherwise` where the key is absent, 0 for "must be there".
    double positive(std::string_view key, double otherwise = 0.0) const;

    bool flag(std::string_view key, bool otherwise) const;

    std::string text(std::string_view key, std::string_view otherwise) const;

    [[noreturn]] void fail(std::string_view key, const std::string& problem) const;

    [[noreturn]] void unsupported(std::string_view key, const std::string& problem) const;

    const std::string& what() const { return what_; }

 private:
    std::size_t integer(std::string_view key, std::int64_t least, std::size_t largest, std::size_t otherwise) const;

    /// The value as JSON, short enough for a message whatever the file holds.
    static std::string shown(const nlohmann::json& value);

    const nlohmann::json* object_;
    std::string what_;
};

}  // namespace gptq::model

#ifndef GPTQ_COMPILED
#include <gptq/model/impl/config_values.hpp>
#endif
