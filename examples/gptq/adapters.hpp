// Adapters as the command line names them.
#pragma once

#include <charconv>
#include <cmath>
#include <filesystem>
#include <string>
#include <system_error>
#include <vector>

#include <gptq/model/adapter.hpp>

namespace program {

/// FOLDER or FOLDER:WEIGHT. A folder whose own name ends so is taken as it is.
inline gptq::model::adapter load_adapter(const std::string& text) {
    const std::size_t colon = text.rfind(':');
    std::error_code ignored;
    if (colon != std::string::npos && !std::filesystem::exists(text, ignored)) {
        double weight = 0.0;
        const char* end = text.data() + text.size();
        const auto [stopped, problem] = std::from_chars(text.data() + colon + 1, end, weight);
        if (problem == std::errc() && stopped == end && std::isfinite(weight))
            return gptq::model::adapter::load(text.substr(0, colon), weight);
    }
    return gptq::model::adapter::load(text);
}

inline std::vector<gptq::model::adapter> load_adapters(const std::vector<std::string>& texts) {
    std::vector<gptq::model::adapter> loaded;
    for (const std::string& text : texts) loaded.push_back(load_adapter(text));
    return loaded;
}

}  // namespace program
