// JSON from files that strangers wrote: nlohmann/json, with duplicate keys, absurd nesting and absurd sizes refused,
// and every error a format_error that names the file. A parsed document takes at most 32 times the memory of its text.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <unordered_set>
#include <vector>

#include <nlohmann/json.hpp>

#include <gptq/error.hpp>
#include <gptq/io/file.hpp>
#include <gptq/quote.hpp>

namespace gptq::io {

/// Deeper nesting is refused.
inline constexpr int max_json_depth = 64;
/// JSON files (not safetensors headers, which have a limit of their own) of more bytes are refused.
inline constexpr std::size_t max_json_bytes = std::size_t{256} << 20;
/// Objects that keep the order of their keys look keys up one by one, so more keys than this are refused.
inline constexpr std::size_t max_ordered_keys = 20'000;

namespace detail {

/// What the parser calls at every token: throws format_error for what a sane file never holds.
template <class Json>
class json_guard {
 public:
    explicit json_guard(const std::string& where) : where_(where) {}

    bool operator()(int depth, typename Json::parse_event_t event, Json& value) {
        using event_t = typename Json::parse_event_t;
        if (depth > max_json_depth)
            throw format_error(where_ + ": JSON nested deeper than " + std::to_string(max_json_depth) + " levels");
        if (event == event_t::object_start) open_objects_.emplace_back();
        if (event == event_t::object_end) open_objects_.pop_back();
        if (event == event_t::key) add_key(value.template get_ref<const std::string&>());
        return true;
    }

 private:
    void add_key(const std::string& key) {
        auto& keys = open_objects_.back();
        if (!keys.insert(key).second)
            throw format_error(where_ + ": key " + in_quotes(key) + " appears twice in one object");
        if (std::is_same_v<Json, nlohmann::ordered_json> && keys.size() > max_ordered_keys)
            throw format_error(where_ + ": more than " + std::to_string(max_ordered_keys) + " keys in one object");
    }

    const std::string& where_;
    std::vector<std::unordered_set<std::string>> open_objects_;
};

}  // namespace detail

/// Parses `text`; `where` (a file's path) begins every message. Json is nlohmann::json or nlohmann::ordered_json.
/// Throws format_error.
template <class Json = nlohmann::json>
Json parse_json(std::string_view text, const std::string& where) {
    detail::json_guard<Json> guard(where);
    try {
        return Json::parse(text.begin(), text.end(), [&](int depth, typename Json::parse_event_t event, Json& value) {
            return guard(depth, event, value);
        });
    } catch (const nlohmann::json::exception& e) {
        throw format_error(where + ": not valid JSON: " + printable(e.what(), 400));
    }
}

/// Parses a regular file of at most max_json_bytes. Throws io_error and format_error.
template <class Json = nlohmann::json>
Json read_json(const std::filesystem::path& path) {
    return parse_json<Json>(read_text_file(path, max_json_bytes), path.string());
}

namespace detail {

/// `text` with NaN, Infinity and -Infinity outside of strings, which Python writes, as marked strings.
std::string quote_literals(std::string_view text);

}  // namespace detail

/// A model's config.json, which Python may have written: NaN, Infinity and -Infinity, which are no JSON, become strings
/// that no setting accepts in place of a number, so that one in a key that is read is still refused. Throws as
/// read_json.
template <class Json = nlohmann::json>
Json read_model_json(const std::filesystem::path& path) {
    const std::string text = read_text_file(path, max_json_bytes);
    if (text.find("NaN") == std::string::npos && text.find("Infinity") == std::string::npos)
        return parse_json<Json>(text, path.string());
    return parse_json<Json>(detail::quote_literals(text), path.string());
}

/// The value of `key` in an object as int, bool, double or std::string; nothing if it is absent or null. `where` begins
/// messages. Throws format_error if it is of another type or out of range.
template <class T, class Json>
std::optional<T> setting(const Json& object, const std::string& key, const std::string& where) {
    const auto found = object.find(key);
    if (found == object.end() || found->is_null()) return std::nullopt;
    const auto fail = [&](const char* expected) {
        throw format_error(where + ": " + in_quotes(key) + " must be " + expected);
    };
    if constexpr (std::is_same_v<T, bool>) {
        if (!found->is_boolean()) fail("true or false");
    } else if constexpr (std::is_same_v<T, int>) {
        constexpr auto lowest = std::numeric_limits<int>::min(), highest = std::numeric_limits<int>::max();
        if (!found->is_number_integer()) fail("an integer");
        const bool fits = found->is_number_unsigned() ? found->template get<std::uint64_t>() <= std::uint64_t{highest}
                                                      : found->template get<std::int64_t>() >= lowest;
        if (!fits) fail("an integer of 32 bits");
    } else if constexpr (std::is_same_v<T, double>) {
        if (!found->is_number()) fail("a number");
    } else {
        static_assert(std::is_same_v<T, std::string>);
        if (!found->is_string()) fail("a string");
    }
    return found->template get<T>();
}

/// The text of a JSON value as files hold it: two spaces of indentation and a final newline, and NaN and infinities as
/// read_model_json found them. Throws format_error for strings that are not UTF-8.
template <class Json>
std::string json_text(const Json& value, const std::string& where) {
    try {
        std::string text = value.dump(2) + "\n";
        for (const std::string literal : {"NaN", "Infinity", "-Infinity"}) {
            const std::string marked = "\"\\u0001" + literal + "\"";
            for (auto at = text.find(marked); at != std::string::npos; at = text.find(marked, at + literal.size()))
                text.replace(at, marked.size(), literal);
        }
        return text;
    } catch (const nlohmann::json::exception& e) {
        throw format_error(where + ": cannot be written as JSON: " + e.what());
    }
}

}  // namespace gptq::io

#ifndef GPTQ_COMPILED
#include <gptq/io/impl/json.hpp>
#endif
