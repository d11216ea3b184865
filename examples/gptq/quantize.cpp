#include "quantize.hpp"

#include <algorithm>
#include <cstddef>
#include <filesystem>
#include <string>

#include <gptq/error.hpp>
#include <gptq/io/gguf_model.hpp>
#include <gptq/io/quantization_config.hpp>
#include <gptq/layouts/ggml_blocks.hpp>
#include <gptq/model/model_config.hpp>
#include <gptq/model/quantize_checks.hpp>
#include <gptq/model/quantize_from_hessians.hpp>
#include <gptq/model/quantize_gguf.hpp>
#include <gptq/model/window_length.hpp>
#include <gptq/settings.hpp>

#include "device.hpp"
#include "written_layers.hpp"

namespace program {
namespace {

void quantize_to_gguf(const quantize_arguments& arguments) {
    io::refuse_existing(arguments.out);
    if (arguments.base.empty() && !io::is_gguf(arguments.model))
        throw gptq::unsupported_error(
            "--type needs --base: the float GGUF file that llama.cpp's converter makes of the float model, "
            "from which tokenizer and metadata are taken");
    const io::model_folder folder(arguments.model);
    quantizing::watcher observer;
    const auto result =
        model::quantize_gguf(folder, arguments.base.empty() ? arguments.model : arguments.base, arguments.out,
                             quantizing::read_windows(folder, arguments),
                             {gptq::layout::find_ggml_type(arguments.type), gptq::solver_options(arguments.settings),
                              arguments.rest == "q8_0" ? io::gguf_rest::q8_0 : io::gguf_rest::keep},
                             observer);
    observer.finish();
    print_gguf_result(arguments.out, result, arguments.json);
}

void quantize_to_folder(const quantize_arguments& arguments) {
    const auto from_hessians = [&](const io::model_folder& folder, const model::quantize_model_options& options,
                                   model::model_observer_ref observer) {
        return model::quantize_from_hessians(folder, arguments.out, arguments.hessians, options, observer);
    };
    if (!arguments.hessians.empty()) return run_and_report(from_hessians, arguments, "");
    const auto on_cpu = [&](const io::model_folder& folder, const model::token_windows& windows,
                            const model::quantize_model_options& options, model::model_observer_ref observer) {
        return model::quantize_model(folder, arguments.out, windows, options, observer);
    };
    choose_device(
        arguments, [&] { on_gpu::quantize(arguments); }, [&] { quantize_with(on_cpu, arguments); });
}

/// Before the work, what tune would refuse after it.
void check_tunable(const model::model_config& config, io::checkpoint_format format) {
    bool refused = io::visit_layout(format, []<class L>() { return gptq::layout::has_grid<L>; });
    for (std::size_t i = 0; i < config.blocks; ++i) refused = refused || config.has_experts(i);
    if (refused) throw gptq::unsupported_error("--tuned: experts and formats without affine grids are not tuned");
}

/// Whether an earlier run of the same command has made the checkpoint.
bool is_made_by(const quantize_arguments& arguments) {
    if (!std::filesystem::exists(arguments.out)) return false;
    const auto there = io::quantization_config::parse(io::model_folder(arguments.out));
    const io::model_folder source(arguments.model);
    const auto wanted =
        model::detail::described(quantizing::options_of(arguments).config, quantizing::read_windows(source, arguments));
    if (!there || there->to_json() != wanted.to_json()) io::refuse_existing(arguments.out);
    return true;
}

/// OUT.untuned, whose scales are then tuned on as much text; both parts go on where an earlier run has stopped.
void quantize_and_tune(const quantize_arguments& arguments) {
    io::refuse_existing(arguments.out);
    const model::model_config config = model::read_model_config(io::model_folder(arguments.model));
    check_tunable(config, quantizing::options_of(arguments).config.format);
    quantize_arguments first = arguments;
    first.out = std::filesystem::path(arguments.out).lexically_normal().string() + ".untuned";
    if (arguments.restart) std::filesystem::remove_all(first.out);
    if (!is_made_by(first)) quantize_to_folder(first);
    tune_arguments then;
    static_cast<common_arguments&>(then) = arguments;
    then.model = first.out;
    then.reference = arguments.model;
    then.out = arguments.out;
    then.calib = arguments.calib;
    then.sampling = arguments.sampling;
    then.special_tokens = arguments.special_tokens;
    const std::size_t length = arguments.seqlen != 0 ? arguments.seqlen : model::customary_window(config);
    then.seqlen = std::min(length, then.seqlen);
    then.nsamples = std::max<std::size_t>(2, arguments.nsamples * length / then.seqlen);
    then.steps = arguments.tuned;
    then.restart = arguments.restart;
    tune(then);
    std::filesystem::remove_all(first.out);
}

}  // namespace

void quantize(const quantize_arguments& arguments) {
    if (!ranks().alone() && (!arguments.type.empty() || arguments.tuned != 0 || !arguments.hessians.empty()))
        throw gptq::unsupported_error("--type, --tuned and --hessians are work for one process; run it without mpirun");
    if (!arguments.type.empty()) return quantize_to_gguf(arguments);
    if (io::is_gguf(arguments.model))
        throw gptq::unsupported_error(arguments.model + ": a GGUF file becomes a GGUF file; add --type, such as q4_k");
    if (arguments.tuned != 0)
        quantize_and_tune(arguments);
    else
        quantize_to_folder(arguments);
}

}  // namespace program
