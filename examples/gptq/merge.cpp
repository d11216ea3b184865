// gptq merge: writes a copy of a float model with an adapter in its weights.
#include <cstddef>
#include <string>
#include <vector>

#include <gptq/backends/cpu/blas.hpp>
#include <gptq/error.hpp>
#include <gptq/io/folder_writer.hpp>
#include <gptq/io/model_folder.hpp>
#include <gptq/io/quantization_config.hpp>
#include <gptq/io/stored_numbers.hpp>
#include <gptq/matrix_view.hpp>
#include <gptq/model/adapter.hpp>
#include <gptq/model/block.hpp>
#include <gptq/model/folder_warnings.hpp>
#include <gptq/model/model_config.hpp>
#include <gptq/xtensor/adapt.hpp>

#include "adapters.hpp"
#include "commands.hpp"
#include "output.hpp"

namespace program {
namespace {

using gptq::tensor2;

/// W += up down.                                                                  W [N, K]  up [N, r]  down [r, K]
void add_term(const gptq::model::low_rank_term& term, tensor2<float>& W) {
    const auto down = gptq::view_of(term.down);
    gptq::matrix<float> transposed(down.cols, down.rows);
    for (std::size_t r = 0; r < down.rows; ++r)
        for (std::size_t k = 0; k < down.cols; ++k) transposed.view()(k, r) = down(r, k);
    gptq::blas::gemm_nt(gptq::view_of(term.up), transposed.view(), gptq::view_of(W), 1.0f, 1.0f);
}

gptq::model::adapter checked_adapter(const gptq::io::model_folder& folder, const std::string& text) {
    if (gptq::io::holds_quantized_tensors(folder))
        throw gptq::unsupported_error(folder.path().string() +
                                      ": is quantized, and codes cannot take an adapter in; run it with --adapter, or "
                                      "merge into the float model and quantize that");
    auto loaded = load_adapter(text);
    const auto config = gptq::model::read_model_config(folder);
    gptq::model::check_adapters(config, !config.tied_embeddings, {&loaded, 1});
    return loaded;
}

void write_tensors(const gptq::io::model_folder& folder, const gptq::model::adapter& adapter,
                   gptq::io::folder_writer& writer) {
    static const std::string suffix = ".weight";
    for (const std::string& name : folder.tensor_names()) {
        const gptq::io::tensor_info& tensor = folder.tensor(name);
        const auto term = name.ends_with(suffix) ? adapter.terms().find(name.substr(0, name.size() - suffix.size()))
                                                 : adapter.terms().end();
        if (term == adapter.terms().end()) {
            writer.copy_tensor(tensor);
            continue;
        }
        tensor2<float> W = folder.read_matrix(name);
        add_term(term->second, W);
        writer.add_tensor(name, tensor.dtype, tensor.shape,
                          gptq::io::stored_as(tensor.dtype, gptq::view_of(W), folder.describe(name)));
    }
}

/// The folder has every weight that the adapter changes, in the shape that its config gives.
void require_weights(const gptq::io::model_folder& folder, const gptq::model::adapter& adapter) {
    for (const auto& [name, term] : adapter.terms()) {
        const gptq::io::tensor_info& tensor = folder.tensor(name + ".weight");
        if (tensor.shape != std::vector<std::size_t>{term.up.shape()[0], term.down.shape()[1]})
            throw gptq::shape_error(folder.describe(tensor.name) + ": has the shape " +
                                    gptq::io::shape_text(tensor.shape) + ", which is not the adapter's");
    }
}

}  // namespace

void merge(const merge_arguments& arguments) {
    const gptq::io::model_folder folder(arguments.model);
    const auto adapter = checked_adapter(folder, arguments.adapter);
    if (const std::string left = gptq::model::left_files_warning(folder); !left.empty()) warn(left);
    require_weights(folder, adapter);
    gptq::io::folder_writer writer(arguments.out);
    write_tensors(folder, adapter, writer);
    writer.copy_file(folder.path() / "config.json");
    for (const auto& file : folder.companion_files()) writer.copy_file(file);
    const std::size_t bytes = writer.tensor_bytes();
    writer.finish();
    if (arguments.json)
        return print_json({{"out", arguments.out}, {"layers", adapter.terms().size()}, {"bytes", bytes}});
    print(format("%s: %zu layers merged, %s of tensors\n", arguments.out.c_str(), adapter.terms().size(),
                 bytes_string(bytes).c_str()));
}

}  // namespace program
