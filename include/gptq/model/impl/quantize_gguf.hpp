// The bodies of <gptq/model/quantize_gguf.hpp>.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <set>
#include <span>
#include <string>
#include <utility>

#include <gptq/backends/cpu/cpu_backend.hpp>
#include <gptq/compiled.hpp>
#include <gptq/error.hpp>
#include <gptq/factor.hpp>
#include <gptq/ggml_rule.hpp>
#include <gptq/io/folder_writer.hpp>
#include <gptq/io/gguf.hpp>
#include <gptq/io/gguf_export.hpp>
#include <gptq/io/gguf_model.hpp>
#include <gptq/io/model_folder.hpp>
#include <gptq/layouts/ggml_blocks.hpp>
#include <gptq/matrix_view.hpp>
#include <gptq/model/calibration.hpp>
#include <gptq/model/model_config.hpp>
#include <gptq/model/quantize_gguf.hpp>
#include <gptq/model/quantize_in_memory.hpp>
#include <gptq/model/quantize_plan.hpp>
#include <gptq/orders.hpp>
#include <gptq/xtensor/adapt.hpp>
#include <gptq/xtensor/surface.hpp>

namespace gptq::model {

GPTQ_INLINE io::gguf_result quantize_gguf(const io::model_folder& folder, const std::filesystem::path& base,
                                          const std::filesystem::path& out, const token_windows& windows,
                                          const quantize_gguf_options& options, model_observer_ref observer) {
    io::refuse_existing(out);
    const io::gguf_file file(base);
    std::set<std::string> modules;
    for (const stage_plan& stage : detail::model_stages(read_model_config(folder), false))
        for (const module_plan& module : stage.modules) modules.insert(module.name);
    const io::gguf_export planned(file, modules, options.rest, [&](const std::string&, const io::gguf_tensor& tensor) {
        if (!io::holds_floats(tensor.type))
            throw format_error(base.string() + ": \"" + tensor.name + "\" is quantized; give the float file");
        const auto* type = layout::type_of_rows(*options.type, tensor.shape.back());
        return type != nullptr ? static_cast<io::gguf_type>(type->id) : tensor.type;
    });
    std::map<std::string, ggml_layer> layers;
    const auto make = [&](const std::string& name, matrix_view<const float> W, const hessian<float>& H) -> made_layer {
        observer.on_progress(static_cast<double>(layers.size()) / static_cast<double>(modules.size()), name);
        const auto* type = layout::type_of_rows(*options.type, W.cols);
        if (type == nullptr) return {};
        ggml_layer layer = solve_ggml(*type, W,
                                      factor_hessian<group_aware_order>(H.backend(), H.upper(), type->weights,
                                                                        options.solver, {}, {}, H.samples()));
        auto values = make_tensor2<float>(W.rows, W.cols);
        dequantize_into(layer, view_of(values));
        layers.insert_or_assign(name, std::move(layer));
        return table(std::move(values));
    };
    quantize_in_memory(folder, windows, make);
    return planned.write(out, [&](const std::string& module, const io::gguf_tensor& tensor, const io::row_order& place,
                                  std::span<std::byte> bytes) {
        const ggml_layer& layer = layers.at(module);
        if (layer.rows != tensor.shape.front() || layer.rows * layer.row(0).size() != bytes.size())
            throw format_error(base.string() + ": \"" + tensor.name + "\" has another shape than the layer " + module);
        for (std::size_t n = 0; n < layer.rows; ++n) {
            const std::span<const std::byte> row = layer.row(n);
            std::copy(row.begin(), row.end(), bytes.begin() + static_cast<std::ptrdiff_t>(place(n) * row.size()));
        }
    });
}

}  // namespace gptq::model
