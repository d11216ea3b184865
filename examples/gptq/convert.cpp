// gptq convert: writes a quantized checkpoint in another format, its values unchanged.
#include <cstddef>
#include <set>
#include <string>

#include <gptq/error.hpp>
#include <gptq/io/folder_writer.hpp>
#include <gptq/io/gguf_export.hpp>
#include <gptq/io/model_folder.hpp>
#include <gptq/io/quantization_config.hpp>
#include <gptq/io/quantized_tensors.hpp>
#include <gptq/model/folder_warnings.hpp>

#include "commands.hpp"
#include "output.hpp"
#include "written_layers.hpp"

namespace program {
namespace {

namespace io = gptq::io;

void convert_to_gguf(const convert_arguments& arguments, const io::model_folder& folder) {
    if (arguments.base.empty())
        throw gptq::unsupported_error(
            "--format gguf needs --base: the float GGUF file that llama.cpp's converter makes of the float model, "
            "from which tokenizer and metadata are taken");
    const auto rest = arguments.rest == "q8_0" ? io::gguf_rest::q8_0 : io::gguf_rest::keep;
    const io::gguf_result result = io::export_gguf(folder, arguments.base, arguments.out, rest);
    print_gguf_result(arguments.out, result, arguments.json);
}

/// Whether a tensor is a part of one of these layers. Biases are not: they are the same in all formats.
bool is_part_of(const std::set<std::string>& modules, const std::string& tensor) {
    const std::size_t dot = tensor.rfind('.');
    return dot != std::string::npos && tensor.substr(dot) != ".bias" && modules.contains(tensor.substr(0, dot));
}

void convert_folder(const convert_arguments& arguments, const io::model_folder& folder) {
    const auto source = io::quantization_config::parse(folder);
    if (!source) throw gptq::format_error(arguments.model + ": is not quantized; give the folder that quantize wrote");
    io::quantization_config config = *source;
    config.format = io::format_of_name(arguments.format).value();
    io::folder_writer writer(arguments.out);
    const std::set<std::string> modules = io::quantized_modules(folder);
    for (const std::string& module : modules)
        io::write_quantized(writer.sink(), config.format, module, io::read_quantized(folder, *source, module));
    for (const std::string& name : folder.tensor_names())
        if (!is_part_of(modules, name)) writer.copy_tensor(folder.tensor(name));
    const std::size_t bytes = writer.tensor_bytes();
    io::write_configs(writer, folder, config);
    if (const std::string left = gptq::model::left_files_warning(folder); !left.empty()) warn(left);
    for (const auto& file : folder.companion_files()) writer.copy_file(file);
    writer.finish();
    print_written(arguments.out, arguments.format, modules.size(), bytes, arguments.json);
}

}  // namespace

void convert(const convert_arguments& arguments) {
    const io::model_folder folder(arguments.model);
    if (arguments.format == "gguf")
        convert_to_gguf(arguments, folder);
    else
        convert_folder(arguments, folder);
}

}  // namespace program
