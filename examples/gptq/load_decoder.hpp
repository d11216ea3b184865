// Loading a model as the command line asks for it.
#pragma once

#include <map>
#include <string>
#include <vector>

#include <gptq/io/model_folder.hpp>
#include <gptq/io/quantization_config.hpp>
#include <gptq/model/decoder.hpp>
#include <gptq/model/folder_warnings.hpp>

#include "adapters.hpp"
#include "commands.hpp"
#include "interrupt.hpp"
#include "output.hpp"

namespace program {

/// The CPU, with quantized layers held as --activation says. `arguments` holds only names that main.cpp let through.
inline gptq::model::cpu_model_backend cpu_of(const run_arguments& arguments) {
    using gptq::model::quantized_form;
    static const std::map<std::string, quantized_form> forms = {
        {"exact", quantized_form::exact}, {"int16", quantized_form::int16}, {"int8", quantized_form::int8}};
    return {forms.at(arguments.activation)};
}

/// Says on standard error what is odd about the folder. The model stops between two blocks where the user asks for it.
/// `adapters` are as the command line names them.
template <gptq::model::ModelBackend B>
gptq::model::basic_decoder<B> load_decoder(const gptq::io::model_folder& folder, const run_arguments& arguments,
                                           const B& backend, const std::vector<std::string>& adapters) {
    using gptq::model::head_form;
    const bool rounded = arguments.head_in_8_bits && gptq::io::holds_quantized_tensors(folder);
    auto decoder = gptq::model::basic_decoder<B>::load(
        folder, backend, rounded ? head_form::eight_bits : head_form::stored, load_adapters(adapters));
    for (const std::string& warning : gptq::model::folder_warnings(decoder.config(), folder)) warn(warning);
    decoder.before_each_block(throw_if_interrupted);
    return decoder;
}

}  // namespace program
