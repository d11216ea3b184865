// Files of gptq::compiled: see <gptq/compiled.hpp>.
#ifndef GPTQ_COMPILED
#error "Define GPTQ_COMPILED for this file and for all others of the program"
#endif

#include <gptq/io/impl/dynamic_rules.hpp>
#include <gptq/io/impl/file.hpp>
#include <gptq/io/impl/folder_writer.hpp>
#include <gptq/io/impl/foreign_files.hpp>
#include <gptq/io/impl/gguf.hpp>
#include <gptq/io/impl/gguf_export.hpp>
#include <gptq/io/impl/gguf_model.hpp>
#include <gptq/io/impl/json.hpp>
#include <gptq/io/impl/model_folder.hpp>
#include <gptq/io/impl/quantization_config.hpp>
#include <gptq/io/impl/quantized_tensors.hpp>
#include <gptq/io/impl/run_folder.hpp>
#include <gptq/io/impl/safetensors.hpp>
#include <gptq/io/impl/settings_json.hpp>
#include <gptq/io/impl/stacked_experts.hpp>
#include <gptq/io/impl/text.hpp>
