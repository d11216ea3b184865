#include "quantize.hpp"

#include <filesystem>
#include <string>

#include <gptq/error.hpp>
#include <gptq/io/gguf_model.hpp>
#include <gptq/layouts/ggml_blocks.hpp>
#include <gptq/model/quantize_from_hessians.hpp>
#include <gptq/model/quantize_gguf.hpp>
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

}  // namespace

void quantize(const quantize_arguments& arguments) {
    if (!arguments.type.empty()) return quantize_to_gguf(arguments);
    if (io::is_gguf(arguments.model))
        throw gptq::unsupported_error(arguments.model + ": a GGUF file becomes a GGUF file; add --type, such as q4_k");
    quantize_to_folder(arguments);
}

}  // namespace program
