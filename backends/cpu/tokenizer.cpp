// Tokenizers of gptq::compiled: see <gptq/compiled.hpp>.
#ifndef GPTQ_COMPILED
#error "Define GPTQ_COMPILED for this file and for all others of the program"
#endif

#include <gptq/model/impl/tokenizer.hpp>
#include <gptq/model/impl/tokenizer_added_tokens.hpp>
#include <gptq/model/impl/tokenizer_bpe.hpp>
#include <gptq/model/impl/tokenizer_character_map.hpp>
#include <gptq/model/impl/tokenizer_decoders.hpp>
#include <gptq/model/impl/tokenizer_gguf.hpp>
#include <gptq/model/impl/tokenizer_json.hpp>
#include <gptq/model/impl/tokenizer_model.hpp>
#include <gptq/model/impl/tokenizer_normalizers.hpp>
#include <gptq/model/impl/tokenizer_oniguruma.hpp>
#include <gptq/model/impl/tokenizer_prefix_tree.hpp>
#include <gptq/model/impl/tokenizer_pretokenizers.hpp>
#include <gptq/model/impl/tokenizer_properties.hpp>
#include <gptq/model/impl/tokenizer_protobuf.hpp>
#include <gptq/model/impl/tokenizer_regex.hpp>
#include <gptq/model/impl/tokenizer_sentencepiece.hpp>
#include <gptq/model/impl/tokenizer_unicode.hpp>
#include <gptq/model/impl/tokenizer_unigram.hpp>
#include <gptq/model/impl/tokenizer_vocabulary.hpp>
#include <gptq/model/impl/tokenizer_wordpiece.hpp>
