// The bodies of <gptq/io/quantized_tensors.hpp>.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include <nlohmann/json.hpp>

#include <gptq/compiled.hpp>
#include <gptq/concepts.hpp>
#include <gptq/error.hpp>
#include <gptq/groups.hpp>
#include <gptq/io/folder_writer.hpp>
#include <gptq/io/impl/element_tensors.hpp>
#include <gptq/io/impl/element_writer.hpp>
#include <gptq/io/impl/tensor_parts.hpp>
#include <gptq/io/json.hpp>
#include <gptq/io/model_folder.hpp>
#include <gptq/io/quantization_config.hpp>
#include <gptq/io/quantized_tensors.hpp>
#include <gptq/io/tensor_sink.hpp>
#include <gptq/layouts/compressed_elements.hpp>
#include <gptq/xtensor/adapt.hpp>
#include <gptq/xtensor/pack.hpp>
#include <gptq/xtensor/quantized.hpp>

namespace gptq::io {

namespace detail {

/// What the codes of a layer are called, by which a quantized layer is known.
inline constexpr std::array<std::string_view, 3> code_suffixes{".qweight", ".weight_packed", ".weight"};

/// A tensor called "weight" holds codes where they are bytes.
inline bool holds_codes(const model_folder& folder, const std::string& name) {
    const dtype type = folder.tensor(name).dtype;
    return !name.ends_with(".weight") || type == dtype::i8 || type == dtype::f8_e4m3;
}

}  // namespace detail

GPTQ_INLINE bool is_quantized(const model_folder& folder, std::string_view module) {
    const auto has = [&](std::string_view suffix) {
        const std::string name = std::string(module) + std::string(suffix);
        return folder.contains(name) && detail::holds_codes(folder, name);
    };
    return std::any_of(detail::code_suffixes.begin(), detail::code_suffixes.end(), has);
}

GPTQ_INLINE std::set<std::string> quantized_modules(const model_folder& folder) {
    std::set<std::string> modules;
    for (const std::string& name : folder.tensor_names())
        for (const std::string_view suffix : detail::code_suffixes)
            if (name.ends_with(suffix) && detail::holds_codes(folder, name))
                modules.insert(name.substr(0, name.size() - suffix.size()));
    return modules;
}

namespace detail {

inline tensor2<std::int32_t> read_words(const tensor_info& info) {
    auto words = make_tensor2<std::int32_t>(info.shape[0], info.shape[1]);
    info.bytes.read(std::as_writable_bytes(std::span(words.data(), words.size())));
    return words;
}

/// The group of each input feature. Entries from -groups to -1 count from the end, as the Python readers of the format
/// take them; others outside [0, groups) are a format_error. Empty where the file has none: then the groups are runs of
/// neighbours, which contradicts act-order with groups that follow it.
inline tensor1<std::int32_t> read_g_idx(const model_folder& folder, const std::string& name, std::size_t in_features,
                                        std::size_t groups, order_kind order) {
    if (!folder.contains(name)) {
        if (order == order_kind::act && groups > 1)
            throw format_error(folder.describe(name) + ": is missing, though the groups follow the activation order");
        return {};
    }
    const auto& info = typed_tensor(folder, name, dtype::i32, 1);
    if (info.shape[0] != in_features)
        throw shape_error(folder.describe(name) + ": has " + std::to_string(info.shape[0]) +
                          " entries, but there are " + std::to_string(in_features) + " input features");
    auto g_idx = make_tensor1<std::int32_t>(in_features);
    info.bytes.read(std::as_writable_bytes(std::span(g_idx.data(), in_features)));
    const auto count = static_cast<std::int64_t>(groups);
    for (std::size_t k = 0; k < in_features; ++k) {
        const std::int64_t group = g_idx(k);
        if (group < -count || group >= count)
            throw format_error(folder.describe(name) + ": entry " + std::to_string(k) + " is " + std::to_string(group) +
                               ", but there are " + std::to_string(groups) + " groups");
        if (group < 0) g_idx(k) = static_cast<std::int32_t>(group + count);
    }
    return g_idx;
}

/// Scales as they lie in the file, of any float type. A scale of 0 is accepted: tiny ones underflow in half precision,
/// and their weights are 0 then. So are negative ones: AutoRound writes them.
inline tensor2<float> read_scales(const model_folder& folder, const std::string& name, extent2 expected,
                                  const std::string& why) {
    auto scales = folder.read_matrix(name);
    check_extents(folder, folder.tensor(name), expected, why);
    return scales;
}

/// [out_features, in_features] of a layer.
template <PackLayout L>
extent2 layer_extents(const model_folder& folder, std::string_view module, const tensor_info& codes, int bits) {
    if constexpr (knows_shape<L>) {
        return L::layer_of({codes.shape[0], codes.shape[1]}, bits);
    } else {
        const auto& info = typed_tensor(folder, std::string(module) + ".weight_shape", dtype::i64, 1);
        std::array<std::int64_t, 2> shape{};
        if (info.bytes.size() != sizeof shape)
            throw shape_error(folder.describe(info.name) + ": has the shape " + shape_text(info.shape) +
                              "; two numbers are needed");
        info.bytes.read(std::as_writable_bytes(std::span(shape)));
        if (shape[0] < 0 || shape[1] < 0) throw format_error(folder.describe(info.name) + ": holds a negative number");
        return {static_cast<std::size_t>(shape[0]), static_cast<std::size_t>(shape[1])};
    }
}

/// The words of a layer, their shapes checked; scales and g_idx are left to the caller.
template <PackLayout L>
packed_layer read_packed_words(const model_folder& folder, std::string_view module, const quantize_settings& settings,
                               const std::string& why, extent2 layer, std::size_t group_features) {
    const auto names = names_of<L>(module);
    packed_layer packed;
    packed.bits = settings.bits;
    // Zero points that are there count, also where the layout needs none.
    packed.sym = settings.sym && (gptq::detail::stores_zeros<L>(true) || !folder.contains(names.zeros));
    packed.out_features = layer.rows;
    packed.in_features = layer.cols;
    packed.group_features = group_features;
    gptq::detail::visit_layout_bits<L>(settings.bits, [&]<int Bits>() {
        const auto& codes = folder.tensor(names.codes);
        check_extents(folder, codes, L::template code_words<Bits>(layer.rows, layer.cols), why);
        packed.qweight = read_words(codes);
        if (!gptq::detail::stores_zeros<L>(packed.sym)) return;
        const auto& zeros = typed_tensor(folder, names.zeros, dtype::i32, 2);
        const std::size_t groups = group_count(layer.cols, group_features);
        check_extents(folder, zeros, L::template zero_words<Bits>(layer.rows, groups), why);
        packed.qzeros = read_words(zeros);
    });
    return packed;
}

template <PackLayout L>
quantized_layer read_quantized_as(const model_folder& folder, std::string_view module,
                                  const quantize_settings& settings) {
    const auto names = names_of<L>(module);
    const auto& codes = typed_tensor(folder, names.codes, dtype::i32, 2);
    const extent2 layer = layer_extents<L>(folder, module, codes, settings.bits);
    if (layer.rows == 0 || layer.cols == 0) throw shape_error(folder.describe(names.codes) + ": is empty");
    const std::size_t group_features = group_size<gptq::dynamic>::features(layer.cols, settings.group_size);
    const std::size_t groups = group_count(layer.cols, group_features);
    const std::string why = std::to_string(settings.bits) + " bits, group_size " + std::to_string(settings.group_size) +
                            " and a layer of " + shape_string(layer.rows, layer.cols);

    auto packed = read_packed_words<L>(folder, module, settings, why, layer, group_features);
    const auto scales = read_scales(folder, names.scales, gptq::detail::scales_shape<L>(layer.rows, groups), why);
    if constexpr (has_g_idx<L>) packed.g_idx = read_g_idx(folder, names.g_idx, layer.cols, groups, settings.order);
    // unpack() takes halves; the file's scales, which may be floats, replace these below.
    packed.scales = make_tensor2<half>(scales.shape()[0], scales.shape()[1]);
    std::fill_n(packed.scales.data(), packed.scales.size(), to_half(1.0f));
    auto result = naming(folder.describe(module), [&] { return unpack<L>(packed); });
    for (std::size_t n = 0; n < layer.rows; ++n)
        for (std::size_t g = 0; g < groups; ++g) result.scales(n, g) = gptq::detail::scale_at<L>(scales, n, g);
    return result;
}

template <PackLayout L>
void write_quantized_as(const tensor_sink& sink, std::string_view module, const quantized_layer& layer) {
    const auto names = names_of<L>(module);
    if (!has_g_idx<L> && !has_plain_groups(layer)) throw unsupported_error("module " + std::string(module) + no_g_idx);
    const auto packed = naming("module " + std::string(module), [&] { return pack<L>(layer); });
    add_matrix(sink, names.codes, dtype::i32, packed.qweight);
    if (gptq::detail::stores_zeros<L>(layer.sym)) add_matrix(sink, names.zeros, dtype::i32, packed.qzeros);
    add_matrix(sink, names.scales, dtype::f16, packed.scales);
    if (has_g_idx<L> && (L::scales_by_group || !has_plain_groups(layer)))
        add_vector<std::int32_t>(sink, names.g_idx, dtype::i32, {packed.g_idx.data(), packed.g_idx.size()});
    if constexpr (!knows_shape<L>) {
        const std::array<std::int64_t, 2> shape{static_cast<std::int64_t>(layer.out_features()),
                                                static_cast<std::int64_t>(layer.in_features())};
        add_vector<std::int64_t>(sink, std::string(module) + ".weight_shape", dtype::i64, shape);
    }
}

}  // namespace detail
GPTQ_INLINE quantized_layer read_quantized(const model_folder& folder, const quantization_config& config,
                                           std::string_view module) {
    const auto settings = config.settings_of(module);
    if (!settings)
        throw format_error(folder.describe(module) + ": the quantization config says that it is not quantized");
    detail::check_bits(config.format, settings->bits, folder.describe(module));
    return visit_layout(config.format, [&]<class L>() {
        if constexpr (layout::holds_elements<L>)
            return detail::read_elements<L>(folder, module, *settings);
        else
            return detail::read_quantized_as<L>(folder, module, *settings);
    });
}

GPTQ_INLINE void write_quantized(const tensor_sink& sink, checkpoint_format format, std::string_view module,
                                 const quantized_layer& layer) {
    visit_layout(format, [&]<class L>() {
        if constexpr (layout::holds_elements<L>)
            detail::write_elements<L>(sink, module, layer);
        else
            detail::write_quantized_as<L>(sink, module, layer);
    });
}

GPTQ_INLINE std::string scales_name(checkpoint_format format, std::string_view module) {
    return visit_layout(format, [&]<class L>() { return detail::names_of<L>(module).scales; });
}

GPTQ_INLINE void write_scales(const tensor_sink& sink, checkpoint_format format, std::string_view module,
                              const quantized_layer& layer) {
    visit_layout(format, [&]<class L>() {
        detail::naming("module " + std::string(module), [&] {
            if constexpr (layout::holds_elements<L>)
                detail::write_element_scales<L>(sink, module, layer.scales);
            else
                detail::add_matrix(sink, detail::names_of<L>(module).scales, dtype::f16,
                                   gptq::detail::scales_to_file<L>(layer.scales));
        });
    });
}

GPTQ_INLINE void write_configs(folder_writer& writer, const model_folder& source, const quantization_config& config,
                               bool own_head) {
    const auto path = source.path() / "config.json";
    auto model = read_model_json<nlohmann::ordered_json>(path);
    const auto description = config.to_json();
    model.erase("compression_config");
    model["quantization_config"] = description;
    if (own_head) model["tie_word_embeddings"] = false;
    writer.write_text("config.json", json_text(model, path.string()));
    if (is_compressed_tensors(config.format)) return;
    writer.write_text("quantize_config.json", json_text(description, "quantize_config.json"));
}

}  // namespace gptq::io
