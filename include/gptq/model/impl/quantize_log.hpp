// The bodies of <gptq/model/quantize_log.hpp>.
#pragma once

#include <algorithm>
#include <array>
#include <charconv>
#include <cstddef>
#include <filesystem>
#include <map>
#include <sstream>
#include <string>
#include <string_view>
#include <vector>

#include <gptq/compiled.hpp>
#include <gptq/error.hpp>
#include <gptq/io/file.hpp>
#include <gptq/model/quantize_log.hpp>
#include <gptq/quote.hpp>

namespace gptq::model {
namespace detail {

GPTQ_INLINE std::string number_string(double value) {
    std::array<char, 32> text{};
    const auto end = std::to_chars(text.data(), text.data() + text.size(), value).ptr;
    return std::string(text.data(), end);
}

/// Larger logs are refused; a model of a hundred blocks has one of a hundred kilobytes.
inline constexpr std::size_t max_log_bytes = std::size_t{64} << 20;

template <class Number>
Number parse_number(const std::string& text, const std::string& where) {
    Number value{};
    const char* last = text.data() + text.size();
    const auto [end, problem] = std::from_chars(text.data(), last, value);
    if (problem != std::errc{} || end != last) throw format_error(where + ": " + in_quotes(text) + " is not a number");
    return value;
}

inline std::vector<std::string> split_line(const std::string& line) {
    std::vector<std::string> fields;
    std::istringstream stream(line);
    for (std::string field; std::getline(stream, field, ',');) fields.push_back(field);
    return fields;
}

}  // namespace detail
GPTQ_INLINE std::string quant_log(const std::vector<module_record>& records) {
    std::string csv = "layer,module,error,rtn_error,samples,damp_percent,seconds,relative_error,drift_share\n";
    for (const module_record& r : records) {
        csv += std::to_string(r.layer) + ',' + r.module;
        for (const double value : {r.error, r.rtn_error}) csv += ',' + detail::number_string(value);
        csv += ',' + std::to_string(r.samples);
        for (const double value : {r.damp_percent, r.seconds, r.relative_error, r.drift_share})
            csv += ',' + detail::number_string(value);
        csv += '\n';
    }
    return csv;
}

GPTQ_INLINE std::vector<module_record> read_quant_log(const std::filesystem::path& path) {
    return parse_quant_log(io::read_text_file(path, detail::max_log_bytes), path.string());
}

GPTQ_INLINE std::vector<module_record> parse_quant_log(const std::string& text, const std::string& where) {
    std::istringstream file(text);
    std::string line;
    std::getline(file, line);
    std::map<std::string, std::size_t, std::less<>> column;
    for (const std::string& name : detail::split_line(line)) column.emplace(name, column.size());

    std::vector<module_record> records;
    while (std::getline(file, line)) {
        const auto fields = detail::split_line(line);
        const auto field = [&](std::string_view name) {
            const auto at = column.find(name);
            if (at == column.end() || at->second >= fields.size())
                throw format_error(where + ": no column " + std::string(name));
            return fields[at->second];
        };
        const auto real = [&](std::string_view name) { return detail::parse_number<double>(field(name), where); };
        const auto count = [&](std::string_view name) { return detail::parse_number<std::size_t>(field(name), where); };
        records.push_back({count("layer"), field("module"), real("error"), real("rtn_error"), count("samples"),
                           real("damp_percent"), real("seconds"), real("relative_error"), real("drift_share")});
    }
    return records;
}

}  // namespace gptq::model
