// Models of gptq::compiled: see <gptq/compiled.hpp>.
#ifndef GPTQ_COMPILED
#error "Define GPTQ_COMPILED for this file and for all others of the program"
#endif

#include <gptq/model/impl/adapter.hpp>
#include <gptq/model/impl/adjoint.hpp>
#include <gptq/model/impl/attention.hpp>
#include <gptq/model/impl/block.hpp>
#include <gptq/model/impl/block_description.hpp>
#include <gptq/model/impl/block_reverse.hpp>
#include <gptq/model/impl/block_run.hpp>
#include <gptq/model/impl/calibration.hpp>
#include <gptq/model/impl/chat_template.hpp>
#include <gptq/model/impl/config_values.hpp>
#include <gptq/model/impl/decoder.hpp>
#include <gptq/model/impl/diagnose.hpp>
#include <gptq/model/impl/embedding.hpp>
#include <gptq/model/impl/finetune_model.hpp>
#include <gptq/model/impl/folder_warnings.hpp>
#include <gptq/model/impl/generate.hpp>
#include <gptq/model/impl/head.hpp>
#include <gptq/model/impl/linear.hpp>
#include <gptq/model/impl/model_config.hpp>
#include <gptq/model/impl/model_observer.hpp>
#include <gptq/model/impl/perplexity.hpp>
#include <gptq/model/impl/prune_model.hpp>
#include <gptq/model/impl/quantize_checks.hpp>
#include <gptq/model/impl/quantize_from_hessians.hpp>
#include <gptq/model/impl/quantize_gguf.hpp>
#include <gptq/model/impl/quantize_in_memory.hpp>
#include <gptq/model/impl/quantize_log.hpp>
#include <gptq/model/impl/quantize_model.hpp>
#include <gptq/model/impl/quantize_plan.hpp>
#include <gptq/model/impl/quantized_folder.hpp>
#include <gptq/model/impl/reader_rules.hpp>
#include <gptq/model/impl/report.hpp>
#include <gptq/model/impl/reverse_pass.hpp>
#include <gptq/model/impl/rope.hpp>
#include <gptq/model/impl/routing.hpp>
#include <gptq/model/impl/run_record.hpp>
#include <gptq/model/impl/sampling.hpp>
#include <gptq/model/impl/scale_fold.hpp>
#include <gptq/model/impl/spared_layers.hpp>
#include <gptq/model/impl/stop_tokens.hpp>
#include <gptq/model/impl/stored_model.hpp>
#include <gptq/model/impl/table.hpp>
#include <gptq/model/impl/text_stream.hpp>
#include <gptq/model/impl/token_weights.hpp>
#include <gptq/model/impl/tune_model.hpp>
#include <gptq/model/impl/tuned_parts.hpp>
#include <gptq/model/impl/weights.hpp>
#include <gptq/model/impl/window_length.hpp>
#include <gptq/model/impl/wrapped_text.hpp>

namespace gptq::model {

template class block_run<cpu_model_backend>;
template class basic_decoder<cpu_model_backend>;
template class block_reverse<cpu_model_backend>;
template class reverse_pass<cpu_model_backend>;
GPTQ_EVALUATIONS(template)

namespace detail {
GPTQ_GENERATION(template)
}  // namespace detail

}  // namespace gptq::model
