// The tokens that end a text, as a model's folder names them.
#pragma once

#include <cstdint>
#include <vector>

#include <gptq/io/model_folder.hpp>
#include <gptq/model/tokenizer.hpp>

namespace gptq::model {

/// The ids that end a text: the tokenizer's own, and "eos_token_id" (a number or a list) of config.json and, where the
/// folder has one, of generation_config.json, which for instruction models often names the end of a turn besides.
/// Throws format_error for an eos_token_id that is neither, io_error where a file cannot be read.
std::vector<std::int32_t> stop_tokens(const io::model_folder& folder, const tokenizer& tokens);

}  // namespace gptq::model

#ifndef GPTQ_COMPILED
#include <gptq/model/impl/stop_tokens.hpp>
#endif
