// The tokenizer that the metadata of a GGUF file describe.
#pragma once

#include <nlohmann/json.hpp>

#include <gptq/io/gguf.hpp>

namespace gptq::model::detail {

/// The tokenizer.json that says the same: byte-level BPE ("gpt2") with one of the ways to cut words that are known, or
/// SentencePiece's BPE ("llama"). It names its own "bos_token" and "eos_token". Throws unsupported_error for others,
/// format_error where the lists do not belong together.
nlohmann::json gguf_tokenizer(const io::gguf_file& file);

}  // namespace gptq::model::detail

#ifndef GPTQ_COMPILED
#include <gptq/model/impl/tokenizer_gguf.hpp>
#endif
