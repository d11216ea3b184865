// How the bodies of studies read and write members of JSON objects.
#pragma once

#include <cstdint>
#include <string>

#include <nlohmann/json.hpp>

#include <gptq/error.hpp>
#include <gptq/io/json.hpp>

namespace gptq::study::detail {

using json = nlohmann::ordered_json;

/// A member that must be there. Throws format_error.
template <class T>
T member(const json& object, const char* key, const std::string& where) {
    const auto found = io::setting<T>(object, key, where);
    if (!found) throw format_error(where + ": has no \"" + key + "\"");
    return *found;
}

inline std::uint64_t count_member(const json& object, const char* key, const std::string& where) {
    const auto found = object.find(key);
    if (found == object.end() || !found->is_number_unsigned())
        throw format_error(where + ": \"" + key + "\" must be a whole number of at least 0");
    return found->get<std::uint64_t>();
}

inline const json& list_member(const json& object, const char* key, const std::string& where) {
    const auto found = object.find(key);
    if (found == object.end() || !found->is_array()) throw format_error(where + ": \"" + key + "\" must be a list");
    return *found;
}

/// null for an empty optional.
inline json optional_json(const auto& value) { return value ? json(*value) : json(nullptr); }

}  // namespace gptq::study::detail
