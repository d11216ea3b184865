// The bodies of <gptq/model/stop_tokens.hpp>.
#pragma once

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <limits>
#include <string>
#include <system_error>
#include <vector>

#include <nlohmann/json.hpp>

#include <gptq/compiled.hpp>
#include <gptq/error.hpp>
#include <gptq/io/json.hpp>
#include <gptq/io/model_folder.hpp>
#include <gptq/model/stop_tokens.hpp>
#include <gptq/model/tokenizer.hpp>

namespace gptq::model {
namespace detail {

/// Adds an id that is not there yet. Negative ones mean "none". Throws format_error, naming the file, for anything
/// else.
inline void add_stop_token(const nlohmann::json& id, const std::string& file, std::vector<std::int32_t>& stops) {
    if (!id.is_number_integer()) throw format_error(file + ": eos_token_id is not a token id or a list of them");
    if (id.is_number_unsigned() &&
        id.get<std::uint64_t>() > static_cast<std::uint64_t>(std::numeric_limits<std::int32_t>::max()))
        throw format_error(file + ": eos_token_id " + id.dump() + " is too large for a token id");
    if (id.get<std::int64_t>() < 0) return;
    const auto stop = id.get<std::int32_t>();
    if (std::find(stops.begin(), stops.end(), stop) == stops.end()) stops.push_back(stop);
}

/// Adds the "eos_token_id" of an object of a file: a number, a list of numbers, or nothing.
inline void add_stop_tokens(const nlohmann::json& object, const std::string& file, std::vector<std::int32_t>& stops) {
    if (!object.is_object()) throw format_error(file + ": not a JSON object");
    const auto entry = object.find("eos_token_id");
    if (entry == object.end() || entry->is_null()) return;
    if (!entry->is_array()) return add_stop_token(*entry, file, stops);
    for (const auto& id : *entry) add_stop_token(id, file, stops);
}

}  // namespace detail
}  // namespace gptq::model

namespace gptq::model {

GPTQ_INLINE std::vector<std::int32_t> stop_tokens(const io::model_folder& folder, const tokenizer& tokens) {
    std::vector<std::int32_t> stops;
    if (const auto eos = tokens.eos_id()) stops.push_back(*eos);
    detail::add_stop_tokens(folder.config(), (folder.path() / "config.json").string(), stops);
    const std::filesystem::path generation = folder.path() / "generation_config.json";
    std::error_code ignored;
    if (std::filesystem::exists(generation, ignored))
        detail::add_stop_tokens(io::read_json(generation), generation.string(), stops);
    return stops;
}

}  // namespace gptq::model
