// gptq convert: writes a quantized checkpoint in another format, its values unchanged.
#include <cstddef>
#include <map>
#include <string>
#include <string_view>
#include <unordered_set>

#include <gptq/error.hpp>
#include <gptq/io/folder_writer.hpp>
#include <gptq/io/gguf_export.hpp>
#include <gptq/io/model_folder.hpp>
#include <gptq/io/quantization_config.hpp>
#include <gptq/io/quantized_tensors.hpp>
#include <gptq/model/folder_warnings.hpp>

#include "commands.hpp"
#include "output.hpp"

namespace program {
namespace {

namespace io = gptq::io;

void print_result(const convert_arguments& arguments, const std::string& format_name, std::size_t layers,
                  std::size_t bytes) {
    if (arguments.json)
        return print_json({{"out", arguments.out}, {"format", format_name}, {"layers", layers}, {"bytes", bytes}});
    print(format("%s: %zu layers as %s, %s of tensors\n", arguments.out.c_str(), layers, format_name.c_str(),
                 bytes_string(bytes).c_str()));
}

void convert_to_gguf(const convert_arguments& arguments, const io::model_folder& folder) {
    if (arguments.base.empty())
        throw gptq::unsupported_error(
            "--format gguf needs --base: the float GGUF file that llama.cpp's converter makes of the float model, "
            "from which tokenizer and metadata are taken");
    const auto rest = arguments.rest == "q8_0" ? io::gguf_rest::q8_0 : io::gguf_rest::keep;
    const io::gguf_result result = io::export_gguf(folder, arguments.base, arguments.out, rest);
    std::string types;
    for (const std::string& type : result.types) types += (types.empty() ? "" : ", ") + type;
    print_result(arguments, types, result.layers, result.bytes);
}

/// The layer that a tensor is a part of in the description's format; empty for tensors that are no part of one.
std::string module_of(const io::model_folder& folder, const std::string& tensor) {
    static constexpr std::string_view parts[] = {
        "qweight",           "qzeros",       "scales",      "g_idx", "weight_packed", "weight_scale",
        "weight_zero_point", "weight_shape", "weight_g_idx"};
    const std::size_t dot = tensor.rfind('.');
    if (dot == std::string::npos) return {};
    const std::string module = tensor.substr(0, dot), part = tensor.substr(dot + 1);
    for (const std::string_view name : parts)
        if (part == name && io::is_quantized(folder, module)) return module;
    return {};
}

void convert_folder(const convert_arguments& arguments, const io::model_folder& folder) {
    static const std::map<std::string, io::checkpoint_format> formats = {
        {"gptq", io::checkpoint_format::gptq},
        {"gptq_v2", io::checkpoint_format::gptq_v2},
        {"compressed-tensors", io::checkpoint_format::compressed_tensors}};
    const auto source = io::quantization_config::parse(folder);
    if (!source) throw gptq::format_error(arguments.model + ": is not quantized; give the folder that quantize wrote");
    io::quantization_config config = *source;
    config.format = formats.at(arguments.format);
    io::folder_writer writer(arguments.out);
    std::unordered_set<std::string> written;
    for (const std::string& name : folder.tensor_names()) {
        const std::string module = module_of(folder, name);
        if (module.empty()) {
            const io::tensor_info& tensor = folder.tensor(name);
            writer.add_tensor(name, tensor.dtype, tensor.shape, tensor.bytes.read());
        } else if (written.insert(module).second) {
            io::write_quantized(writer.sink(), config.format, module, io::read_quantized(folder, *source, module));
        }
    }
    const std::size_t bytes = writer.tensor_bytes();
    io::write_configs(writer, folder, config);
    if (const std::string left = gptq::model::left_files_warning(folder); !left.empty()) warn(left);
    for (const auto& file : folder.companion_files()) writer.copy_file(file);
    writer.finish();
    print_result(arguments, arguments.format, written.size(), bytes);
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
