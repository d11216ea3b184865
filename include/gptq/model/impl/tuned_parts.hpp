// The bodies of <gptq/model/tuned_parts.hpp>.
#pragma once

#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <gptq/compiled.hpp>
#include <gptq/error.hpp>
#include <gptq/fold.hpp>
#include <gptq/grids/half_scale.hpp>
#include <gptq/io/folder_writer.hpp>
#include <gptq/io/model_folder.hpp>
#include <gptq/io/safetensors.hpp>
#include <gptq/io/stored_numbers.hpp>
#include <gptq/matrix_view.hpp>
#include <gptq/model/elementwise.hpp>
#include <gptq/model/linear.hpp>
#include <gptq/model/tuned_parts.hpp>
#include <gptq/xtensor/adapt.hpp>
#include <gptq/xtensor/quantized.hpp>

namespace gptq::model {

// ---- Adam -----------------------------------------------------------------------------------------------------------

GPTQ_INLINE tuned_numbers::tuned_numbers(std::vector<float> start, std::vector<float> units)
    : start_(std::move(start)),
      units_(std::move(units)),
      change_(start_.size()),
      kept_(start_.size()),
      gradient_(start_.size()),
      mean_(start_.size()),
      square_(start_.size()) {}

GPTQ_INLINE void tuned_numbers::step(double rate) {
    constexpr float forget = 0.9f, forget_square = 0.999f;
    ++steps_;
    const auto count = static_cast<double>(steps_);
    const auto mean_share = static_cast<float>(rate / (1.0 - std::pow(double{forget}, count)));
    const auto square_share = static_cast<float>(1.0 / (1.0 - std::pow(double{forget_square}, count)));
    for (std::size_t i = 0; i < change_.size(); ++i) {
        const float slope = gradient_[i] * units_[i];
        mean_[i] = forget * mean_[i] + (1.0f - forget) * slope;
        square_[i] = forget_square * square_[i] + (1.0f - forget_square) * slope * slope;
        // A number that no token reaches has no slope and stays where it is.
        constexpr float tiny = 1e-12f;
        change_[i] -= mean_share * mean_[i] / (std::sqrt(square_[i] * square_share) + tiny);
        gradient_[i] = 0.0f;
    }
}

GPTQ_INLINE void tuned_numbers::save(const io::tensor_sink& sink, const std::string& name) const {
    std::vector<float> all;
    for (const std::vector<float>* part : {&change_, &kept_, &mean_, &square_})
        all.insert(all.end(), part->begin(), part->end());
    sink(name, io::dtype::f32, std::array<std::size_t, 2>{4, size()}, std::as_bytes(std::span(all)));
}

GPTQ_INLINE void tuned_numbers::load(const io::safetensors_file& file, const std::string& name, std::size_t steps) {
    const std::string where = file.path().string() + ": tensor " + name;
    const io::tensor_info* const tensor = file.find(name);
    if (tensor == nullptr || tensor->dtype != io::dtype::f32 || tensor->shape != std::vector<std::size_t>{4, size()})
        throw format_error(where + ": is missing, or is no F32 [4, " + std::to_string(size()) + "]");
    std::vector<float> all(4 * size());
    io::detail::read_floats(*tensor, all, where);
    auto next = all.begin();
    for (std::vector<float>* part : {&change_, &kept_, &mean_, &square_})
        for (float& x : *part) x = *next++;
    steps_ = steps;
}

// ---- scales ---------------------------------------------------------------------------------------------------------

namespace detail {

/// Elements of weights from which on several threads go through their rows.
inline constexpr std::size_t many_weights = std::size_t{1} << 16;

inline std::vector<float> all_scales(const quantized_layer& layer) {
    return {layer.scales.data(), layer.scales.data() + layer.scales.size()};
}

}  // namespace detail

GPTQ_INLINE tuned_layer::tuned_layer(std::string module, quantized_layer&& codes, linear& target)
    : module_(std::move(module)),
      codes_(std::move(codes)),
      target_(&target),
      scales_(detail::all_scales(codes_), detail::all_scales(codes_)) {
    for (std::size_t k = 0; k < codes_.in_features(); ++k) {
        const auto group = static_cast<std::size_t>(codes_.g_idx(k));
        if (runs_.empty() || runs_.back().group != group) runs_.push_back({k, k, group});
        runs_.back().last = k + 1;
    }
}

GPTQ_INLINE void tuned_layer::show() {
    // A scale of 0, which underflow leaves in files, has no step to be changed by.
    for (std::size_t i = 0; i < scales_.size(); ++i)
        codes_.scales.data()[i] = scales_[i] == 0.0f ? 0.0f : half_scale::storable(scales_[i]);
    const matrix_view<float> W = view_of(target_->weight);  // [N, K]
    const const_quantized_view q = std::as_const(codes_).view();
    const auto write_row = [&](std::size_t n) {
        const std::span<const std::uint8_t> codes = q.codes.row(n);
        const std::span<float> weights = W.row(n);
        for (const run& r : runs_) {
            const float scale = q.scales(n, r.group), zero = static_cast<float>(q.zeros(n, r.group));
            for (std::size_t k = r.first; k < r.last; ++k) weights[k] = scale * (static_cast<float>(codes[k]) - zero);
        }
    };
    detail::for_each_row(W.rows, W.cols, write_row, detail::many_weights);
}

GPTQ_INLINE void tuned_layer::add_gradient(matrix_view<const float> dW) {
    const const_quantized_view q = std::as_const(codes_).view();
    const matrix_view<float> gradient(scales_.gradient().data(), q.scales.rows, q.scales.cols);
    const auto add_row = [&](std::size_t n) {
        const std::uint8_t* const codes = q.codes.row(n).data();
        const float* const slopes = dW.row(n).data();
        for (const run& r : runs_) {
            const auto zero = static_cast<float>(q.zeros(n, r.group));
            gradient(n, r.group) += gptq::detail::sum<16>(r.last - r.first, [&](std::size_t i) {
                return slopes[r.first + i] * (static_cast<float>(codes[r.first + i]) - zero);
            });
        }
    };
    detail::for_each_row(dW.rows, dW.cols, add_row, detail::many_weights);
}

// ---- norms ----------------------------------------------------------------------------------------------------------

namespace detail {

inline std::vector<float> all_numbers(const io::model_folder& folder, const std::string& tensor) {
    const tensor1<float> read = folder.read_vector(tensor);
    return {read.data(), read.data() + read.size()};
}

/// The numbers of a norm have one unit: what they amount to in the model, on average.
inline std::vector<float> norm_units(const std::vector<float>& numbers, float offset) {
    const double squares = gptq::detail::sum(
        numbers.size(), [&](std::size_t i) { return std::pow(double{numbers[i]} + double{offset}, 2.0); });
    return std::vector<float>(numbers.size(),
                              static_cast<float>(std::sqrt(squares / static_cast<double>(numbers.size()))));
}

}  // namespace detail

GPTQ_INLINE tuned_norm::tuned_norm(const io::model_folder& folder, std::string tensor, float factor, float offset)
    : tensor_(std::move(tensor)),
      where_(folder.describe(tensor_)),
      dtype_(folder.tensor(tensor_).dtype),
      factor_(factor),
      offset_(offset),
      numbers_(detail::all_numbers(folder, tensor_), detail::norm_units(detail::all_numbers(folder, tensor_), offset)) {
}

GPTQ_INLINE std::vector<std::byte> tuned_norm::stored(std::span<float> rounded) const {
    for (std::size_t i = 0; i < rounded.size(); ++i) rounded[i] = numbers_[i];
    return io::stored_as(dtype_, matrix_view<float>(rounded.data(), 1, rounded.size()), where_);
}

GPTQ_INLINE void tuned_norm::show() {
    std::vector<float> rounded(numbers_.size());
    stored(rounded);
    for (tensor1<float>* target : targets_)
        for (std::size_t i = 0; i < rounded.size(); ++i) (*target)(i) = factor_ * (rounded[i] + offset_);
}

GPTQ_INLINE void tuned_norm::add_gradient(std::span<const float> of_target) {
    const std::span<float> gradient = numbers_.gradient();
    for (std::size_t i = 0; i < gradient.size(); ++i) gradient[i] += factor_ * of_target[i];
}

GPTQ_INLINE void tuned_norm::write(io::folder_writer& writer) const {
    std::vector<float> rounded(numbers_.size());
    const std::vector<std::byte> bytes = stored(rounded);
    const std::array<std::size_t, 1> shape{rounded.size()};
    writer.add_tensor(tensor_, dtype_, shape, bytes);
}

}  // namespace gptq::model
