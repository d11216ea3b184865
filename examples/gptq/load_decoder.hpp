// Loading a model as the command line asks for it.
#pragma once

#include <map>
#include <string>

#include <gptq/io/model_folder.hpp>
#include <gptq/model/decoder.hpp>

#include "commands.hpp"

namespace program {

/// `arguments` holds only names that main.cpp let through.
inline gptq::model::decoder load_decoder(const gptq::io::model_folder& folder, const run_arguments& arguments) {
    using gptq::model::head_form;
    using gptq::model::quantized_form;
    static const std::map<std::string, quantized_form> forms = {
        {"exact", quantized_form::exact}, {"int16", quantized_form::int16}, {"int8", quantized_form::int8}};
    return gptq::model::decoder::load(folder, forms.at(arguments.activation),
                                      arguments.head_in_8_bits ? head_form::eight_bits : head_form::stored);
}

}  // namespace program
