// The bodies of <gptq/model/scale_fold.hpp>.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <numeric>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include <gptq/compiled.hpp>
#include <gptq/error.hpp>
#include <gptq/half.hpp>
#include <gptq/io/model_folder.hpp>
#include <gptq/io/stored_numbers.hpp>
#include <gptq/model/architecture.hpp>
#include <gptq/model/block.hpp>
#include <gptq/model/scale_fold.hpp>
#include <gptq/model/table.hpp>

namespace gptq::model {
namespace detail {

inline const block_norm* find_norm(const block_description& block, norm_place place) {
    const auto found =
        std::find_if(block.norms.begin(), block.norms.end(), [place](const block_norm& n) { return n.place == place; });
    return found == block.norms.end() ? nullptr : &*found;
}

inline const block_step& step_of_site(const block_description& block, std::size_t site) {
    return *std::find_if(block.steps.begin(), block.steps.end(),
                         [site](const block_step& s) { return site < s.first_site + s.sites; });
}

/// Why no norm can take the scales; empty if it can.
inline std::string norm_obstacle(const model_config& c, const block_description& block, const block_step& step) {
    const block_norm* norm = find_norm(block, step.before);
    if (norm == nullptr || !c.norm_before) return "no norm stands before it";
    if (!c.norm_parameters) return "the norm before it has no weights";
    if (step.kind == step_kind::experts) return "the router of the experts reads the norm before it, too";
    const auto same = [norm](const block_norm& other) { return other.name == norm->name; };
    if (std::count_if(block.norms.begin(), block.norms.end(), same) > 1)
        return "attention and MLP read the norm before it";
    return "";
}

/// The layer that computes feature f of a part of a site, and the row that does.
inline std::pair<std::size_t, std::size_t> row_of_part(const block_site& site, std::size_t part, std::size_t f) {
    if (site.modules.size() > 1) return {part, f};
    const std::size_t share = site.parts[part] / site.pieces;
    const auto all = [&](std::size_t parts) {
        return std::accumulate(site.parts.begin(), site.parts.begin() + static_cast<std::ptrdiff_t>(parts),
                               std::size_t{0}) /
               site.pieces;
    };
    return {0, f / share * all(site.parts.size()) + all(part) + f % share};
}

/// The last part of the site before, v or up, takes the scales.
inline void fold_into_layer(const block_description& block, std::size_t before, scale_fold& fold) {
    const block_site& site = block.sites[before];
    const std::size_t part = site.parts.size() - 1;
    fold.scales = site.parts[part];
    fold.layer = {before, row_of_part(site, part, 0).first};
    for (std::size_t i = 0; i < fold.scales; ++i) fold.rows.push_back(row_of_part(site, part, i).second);
}

inline void require_scales(const scale_fold& fold, const std::string& layer, std::span<const float> s) {
    if (!fold.obstacle.empty()) throw unsupported_error(layer + ": takes no scales: " + fold.obstacle);
    if (s.size() != fold.scales)
        throw shape_error(layer + ": takes " + std::to_string(fold.scales) + " scales, not " +
                          std::to_string(s.size()));
    for (const float scale : s)
        if (!(scale > 0.0f) || !std::isfinite(scale))
            throw option_error(layer + ": the scale " + std::to_string(scale) + " is not positive and finite");
}

/// The layer's weights in float, to be changed.
inline tensor2<float> take_floats(stored_layer& layer, const std::string& name) {
    auto* numbers = std::get_if<table>(&layer.weights);
    if (numbers == nullptr) throw unsupported_error(name + ": is stored as codes; scales are folded into floats only");
    return std::move(*numbers).floats();
}

inline void scale_columns(stored_layer& layer, const std::string& name, const scale_fold& fold,
                          std::span<const float> s) {
    tensor2<float> W = take_floats(layer, name);
    const matrix_view<float> view = view_of(W);
    for (std::size_t n = 0; n < view.rows; ++n)
        for (std::size_t k = 0; k < view.cols; ++k) view(n, k) *= s[fold.columns[k]];
    layer.weights = table(std::move(W));
}

inline void divide_rows(stored_layer& layer, const std::string& name, const scale_fold& fold,
                        std::span<const float> s) {
    tensor2<float> W = take_floats(layer, name);
    for (std::size_t i = 0; i < fold.scales; ++i) {
        for (float& w : view_of(W).row(fold.rows[i])) w /= s[i];
        if (layer.bias.size() != 0) layer.bias(fold.rows[i]) /= s[i];
    }
    layer.weights = table(std::move(W));
}

inline void divide(tensor1<float>& numbers, std::span<const float> s) {
    for (std::size_t i = 0; i < numbers.size(); ++i) numbers(i) /= s[i];
}

inline std::string norm_name(const block_description& block, norm_place place) {
    return block.prefix + find_norm(block, place)->name;
}

/// F64 becomes F32.
inline io::dtype written_dtype(const io::model_folder& source, const std::string& name) {
    const io::dtype type = source.tensor(name).dtype;
    return type == io::dtype::f64 ? io::dtype::f32 : type;
}

/// The number that a tensor of the type holds in the place of x; infinite where it holds none.
inline float as_stored(io::dtype type, float x) {
    if (type == io::dtype::f16) return to_float(narrow<half>(x));
    return type == io::dtype::bf16 ? to_float(narrow<bfloat16>(x)) : x;
}

/// What `stored` has under that name, if it does, plus `plus`.
inline void take_stored(const io::model_folder& stored, const std::string& name, tensor1<float>& values, float plus) {
    if (!stored.contains(name)) return;
    tensor1<float> found = stored.read_vector(name);
    if (found.size() != values.size())
        throw shape_error(stored.describe(name) + ": has " + std::to_string(found.size()) +
                          " elements; the model's tensor has " + std::to_string(values.size()));
    for (float& x : found) x += plus;
    values = std::move(found);
}

}  // namespace detail

GPTQ_INLINE scale_fold fold_before(const model_config& config, const block_description& block, std::size_t site) {
    const block_site& here = block.sites[site];
    const block_step& step = detail::step_of_site(block, site);
    scale_fold fold;
    fold.columns.resize(here.in_features());
    std::iota(fold.columns.begin(), fold.columns.end(), std::size_t{0});
    switch (here.kind) {
        case site_kind::attention_in:
        case site_kind::mlp_in:
            fold.obstacle = detail::norm_obstacle(config, block, step);
            fold.norm = step.before;
            fold.scales = here.in_features();
            break;
        case site_kind::attention_out: {
            detail::fold_into_layer(block, site - 1, fold);
            const std::size_t width = config.head_dim, shared = config.heads / config.kv_heads;
            for (std::size_t& k : fold.columns) k = k / width / shared * width + k % width;
            break;
        }
        case site_kind::mlp_out:
            detail::fold_into_layer(block, site - 1, fold);
            if (!config.gated() && config.activation != mlp_activation::relu)
                fold.obstacle = "its input is not linear in the layer before it";
            break;
    }
    return fold;
}

GPTQ_INLINE void fold_scales(stored_block& block, std::size_t site, const scale_fold& fold, std::span<const float> s) {
    const auto name = [&](std::size_t at, std::size_t module) {
        return block.what.full_name(block.what.sites[at].modules[module]);
    };
    detail::require_scales(fold, name(site, 0), s);
    for (std::size_t m = 0; m < block.layers[site].size(); ++m)
        detail::scale_columns(block.layers[site][m], name(site, m), fold, s);
    if (fold.norm) {
        norm_layer& norm = block.norm(*fold.norm).value();
        detail::divide(norm.weight, s);
        detail::divide(norm.bias, s);
    } else {
        const auto [at, module] = fold.layer;
        detail::divide_rows(block.layers[at][module], name(at, module), fold, s);
    }
}

GPTQ_INLINE std::vector<float> storable_scales(const model_config& config, const io::model_folder& source,
                                               const stored_block& block, const scale_fold& fold,
                                               std::span<const float> s) {
    std::vector<float> scales(s.begin(), s.end());
    if (!fold.norm) return scales;
    const std::string name = detail::norm_name(block.what, *fold.norm) + ".weight";
    const tensor1<float>& weight = block.norm(*fold.norm).value().weight;
    const float one = config.arch.norm_adds_one ? 1.0f : 0.0f;
    const io::dtype type = detail::written_dtype(source, name);
    for (std::size_t i = 0; i < scales.size(); ++i) {
        const float exact = weight(i) / (detail::as_stored(type, weight(i) / scales[i] - one) + one);
        scales[i] = exact > 0.0f && std::isfinite(exact) ? exact : 1.0f;
    }
    return scales;
}

GPTQ_INLINE void folded_tensors::put(const io::model_folder& source, const std::string& name, tensor1<float>& values,
                                     float minus) {
    if (values.size() == 0) return;
    const io::dtype type = detail::written_dtype(source, name);
    for (float& x : values) x -= minus;
    const matrix_view<float> row(values.data(), 1, values.size());
    named_tensor tensor{name, type, values.size(), io::stored_as(type, row, name)};
    for (float& x : values) x += minus;
    const auto same = [&](const named_tensor& t) { return t.name == name; };
    const auto there = std::find_if(tensors_.begin(), tensors_.end(), same);
    if (there == tensors_.end())
        tensors_.push_back(std::move(tensor));
    else
        *there = std::move(tensor);
}

GPTQ_INLINE void folded_tensors::add(const model_config& config, const io::model_folder& source, stored_block& block,
                                     const scale_fold& fold) {
    if (fold.norm) {
        const std::string name = detail::norm_name(block.what, *fold.norm);
        norm_layer& norm = block.norm(*fold.norm).value();
        put(source, name + ".weight", norm.weight, config.arch.norm_adds_one ? 1.0f : 0.0f);
        put(source, name + ".bias", norm.bias, 0.0f);
        return;
    }
    const auto [site, module] = fold.layer;
    put(source, block.what.full_name(block.what.sites[site].modules[module]) + ".bias", block.layers[site][module].bias,
        0.0f);
}

GPTQ_INLINE void folded_tensors::write(const io::tensor_sink& sink) const {
    for (const named_tensor& t : tensors_) sink(t.name, t.dtype, std::array{t.size}, t.bytes);
}

GPTQ_INLINE void take_folded(const model_config& config, const io::model_folder& stored, stored_block& block) {
    for (const block_norm& n : block.what.norms) {
        const std::string name = block.what.prefix + n.name;
        norm_layer& norm = block.norm(n.place).value();
        detail::take_stored(stored, name + ".weight", norm.weight, config.arch.norm_adds_one ? 1.0f : 0.0f);
        detail::take_stored(stored, name + ".bias", norm.bias, 0.0f);
    }
    for (std::size_t site = 0; site < block.layers.size(); ++site)
        for (std::size_t m = 0; m < block.layers[site].size(); ++m)
            detail::take_stored(stored, block.what.full_name(block.what.sites[site].modules[m]) + ".bias",
                                block.layers[site][m].bias, 0.0f);
}

}  // namespace gptq::model
