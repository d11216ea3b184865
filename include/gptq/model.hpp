// Everything about whole models: checkpoint folders, tokenizers, quantizing, running, perplexity. Files that need less
// include less.
#pragma once

#include <gptq/io/model_folder.hpp>
#include <gptq/model/calibration.hpp>
#include <gptq/model/decoder.hpp>
#include <gptq/model/generate.hpp>
#include <gptq/model/perplexity.hpp>
#include <gptq/model/quantize_in_memory.hpp>
#include <gptq/model/quantize_model.hpp>
#include <gptq/model/report.hpp>
#include <gptq/model/tokenizer.hpp>
