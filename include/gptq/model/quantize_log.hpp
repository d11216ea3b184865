// What was recorded about each quantized module, and quant_log.csv, the file that keeps it beside the checkpoint.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace gptq::model {

/// One quantized module. With W its weights, Q the quantized ones, D = W - Q and H the Hessian (2/T) X'X of its inputs:
struct module_record {
    std::size_t layer = 0;        ///< index of the decoder block; the number of blocks for the output layer
    std::string module;           ///< name within the block, e.g. "self_attn.q_proj"
    double error = 0.0;           ///< tr(D H D'): twice the mean over tokens of the squared error of the outputs
    double rtn_error = 0.0;       ///< the same, had the module been rounded to nearest
    std::size_t samples = 0;      ///< calibration tokens that it saw
    double damp_percent = 0.0;    ///< the damping that the factorization succeeded with; 0 when rounded to nearest
    double seconds = 0.0;         ///< its share of the time, without computing the model's activations
    double relative_error = 0.0;  ///< error / tr(W H W'): the part of the outputs' energy that is wrong
    double drift_share = 0.0;     ///< alpha of the correction for the drift of the inputs; W then includes it
};

/// What quantize_model reports.
struct quantize_result {
    std::vector<module_record> modules;  ///< in the order in which they were quantized
    std::vector<std::string> warnings;   ///< whatever did not go as asked: nothing falls back silently
    double seconds = 0.0;
    double bits_per_weight = 0.0;  ///< of the quantized modules, with scales, zero points and g_idx
    std::uint64_t bytes = 0;       ///< of all tensors written
};

namespace detail {

/// The shortest text that reads back as `value`, whatever the locale.
std::string number_string(double value);

}  // namespace detail

inline constexpr std::string_view quant_log_name = "quant_log.csv";

/// The contents of quant_log.csv: a line of column names, then one line a module.
std::string quant_log(const std::vector<module_record>& records);

/// Reads a quant_log.csv of this library's; columns are found by their names. Throws io_error where there is none, and
/// format_error where a column is missing (other programs write logs of the same name) or a field is no number.
std::vector<module_record> read_quant_log(const std::filesystem::path& path);

/// The same from its text; `where` begins messages.
std::vector<module_record> parse_quant_log(const std::string& text, const std::string& where);

}  // namespace gptq::model

#ifndef GPTQ_COMPILED
#include <gptq/model/impl/quantize_log.hpp>
#endif
