// What tuning changes in a quantized model: the scales of layers and the parameters of norms, with Adam's state.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include <gptq/io/dtype.hpp>
#include <gptq/io/folder_writer.hpp>
#include <gptq/io/model_folder.hpp>
#include <gptq/io/quantization_config.hpp>
#include <gptq/io/safetensors.hpp>
#include <gptq/io/tensor_sink.hpp>
#include <gptq/matrix_view.hpp>
#include <gptq/model/linear.hpp>
#include <gptq/xtensor/adapt.hpp>
#include <gptq/xtensor/quantized.hpp>

namespace gptq::model {

/// Numbers that Adam (Kingma and Ba, ICLR 2015) moves, each in steps relative to a unit of its own:
/// number = start + unit change, and the change is what Adam sees.
class tuned_numbers {
 public:
    /// As many units as numbers.
    tuned_numbers(std::vector<float> start, std::vector<float> units);

    std::size_t size() const { return start_.size(); }
    float operator[](std::size_t i) const { return start_[i] + units_[i] * change_[i]; }

    /// Of a loss by each number, for the next step.
    std::span<float> gradient() { return gradient_; }

    /// One step; the gradients are 0 after it.
    void step(double rate);

    /// keep() remembers the numbers, restore() goes back to those of the last keep(), at first the start.
    void keep() { kept_ = change_; }
    void restore() { change_ = kept_; }

    /// All that steps have changed, as a tensor of that name: changes, those kept, and Adam's two means [4, size()].
    void save(const io::tensor_sink& sink, const std::string& name) const;

    /// What save() wrote after `steps` steps. Throws format_error where the file has no such tensor or of another
    /// shape.
    void load(const io::safetensors_file& file, const std::string& name, std::size_t steps);

 private:
    std::vector<float> start_, units_, change_, kept_, gradient_, mean_, square_;
    std::size_t steps_ = 0;
};

/// The scales of one quantized layer of a model. The layer computes with them as they are written: as halves.
class tuned_layer {
 public:
    /// `target` is the layer in the model, held dense, and outlives this.
    tuned_layer(std::string module, quantized_layer&& codes, linear& target);

    const std::string& module() const { return module_; }
    int bits() const { return codes_.bits; }
    tuned_numbers& scales() { return scales_; }

    /// Writes the weights that the scales give into the model.
    void show();

    /// Adds the gradient of a loss by the scales, of that by the weights.                              dW [N, K]
    void add_gradient(matrix_view<const float> dW);

    /// The layer with its scales.
    const quantized_layer& layer() const { return codes_; }

 private:
    /// Neighbouring inputs of one group.
    struct run {
        std::size_t first, last, group;
    };

    std::string module_;
    quantized_layer codes_;
    linear* target_;
    std::vector<run> runs_;
    tuned_numbers scales_;  // [N, G], row by row
};

/// A tensor of a norm, its weight or its bias. The model may hold it several times, and as factor (number + offset). It
/// computes with the numbers as they are written: in the dtype of the file.
class tuned_norm {
 public:
    tuned_norm(const io::model_folder& folder, std::string tensor, float factor, float offset);

    const std::string& tensor() const { return tensor_; }
    tuned_numbers& numbers() { return numbers_; }

    /// One more place in the model that holds it.
    void add_target(tensor1<float>& held) { targets_.push_back(&held); }

    void show();

    /// Adds the gradient of a loss by what one target holds.
    void add_gradient(std::span<const float> of_target);

    void write(io::folder_writer& writer) const;

 private:
    /// The bytes of the numbers in the file's dtype; `rounded` becomes what they stand for.
    std::vector<std::byte> stored(std::span<float> rounded) const;

    std::string tensor_, where_;
    io::dtype dtype_;
    float factor_, offset_;
    std::vector<tensor1<float>*> targets_;
    tuned_numbers numbers_;
};

}  // namespace gptq::model

#ifndef GPTQ_COMPILED
#include <gptq/model/impl/tuned_parts.hpp>
#endif
