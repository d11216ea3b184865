// Quantizes a whole model, block by block, from a folder to a folder.
//
// Each block's inputs come from the already quantized blocks before it, and within a block each layer's inputs from the
// already quantized layers before it. The input of a layer depends on nothing else, so one pass over the calibration
// set collects an input, quantizes the layers that read it, and computes their outputs with the quantized weights:
// nothing is evaluated twice. Memory holds the activations of the calibration set, one block in float, and what is
// being written.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <string>
#include <type_traits>
#include <vector>

#include <gptq/io/model_folder.hpp>
#include <gptq/model/backend.hpp>
#include <gptq/model/calibration.hpp>
#include <gptq/model/quantize_log.hpp>
#include <gptq/model/quantize_plan.hpp>

namespace gptq::model {

struct quantize_result {
    std::vector<module_record> modules;  ///< in the order in which they were quantized
    std::vector<std::string> warnings;   ///< whatever did not go as asked: nothing falls back silently
    double seconds = 0.0;
    double bits_per_weight = 0.0;  ///< of the quantized modules, with scales, zero points and g_idx
    std::uint64_t bytes = 0;       ///< of all tensors written
};

/// What may watch quantize_model: an Observer with more members.
///  - on_progress(fraction, doing): `fraction` (0 to 1) of the weights are done, and the module `doing` comes next.
///  - on_module(record): a module is done.
///  - on_warning(text), which may be left out: what the user should know before the work begins. The result has it, too.
/// What they throw stops the work, as in on_columns; gptq::cancelled is the exception for "the user wants to stop".
template <class O>
concept ModelObserver = requires(O& o, const module_record& record, const std::string& doing, std::size_t columns) {
    o.on_progress(0.5, doing);
    o.on_module(record);
    o.on_columns(columns, columns);
};

/// Any ModelObserver by reference and without its type, or none: quantize_model is compiled once for all of them. The
/// observer outlives it.
class model_observer_ref {
 public:
    model_observer_ref() = default;
    template <ModelObserver O>
    requires(!std::is_same_v<O, model_observer_ref>) model_observer_ref(O& observer)
        : observer_(std::addressof(observer)),
          on_progress_([](void* o, double f, const std::string& d) { static_cast<O*>(o)->on_progress(f, d); }),
          on_module_([](void* o, const module_record& r) { static_cast<O*>(o)->on_module(r); }),
          on_columns_([](void* o, std::size_t d, std::size_t t) { static_cast<O*>(o)->on_columns(d, t); }),
          on_warning_([]([[maybe_unused]] void* o, [[maybe_unused]] const std::string& w) {
              if constexpr (requires(O & watching) { watching.on_warning(w); }) static_cast<O*>(o)->on_warning(w);
          }) {}

    void on_progress(double fraction, const std::string& doing) const;
    void on_module(const module_record& record) const;
    void on_columns(std::size_t done, std::size_t total) const;
    void on_warning(const std::string& warning) const;

 private:
    void* observer_ = nullptr;
    void (*on_progress_)(void*, double, const std::string&) = nullptr;
    void (*on_module_)(void*, const module_record&) = nullptr;
    void (*on_columns_)(void*, std::size_t, std::size_t) = nullptr;
    void (*on_warning_)(void*, const std::string&) = nullptr;
};

/// Quantizes the model in `folder` into the new folder `out`, layer by layer on `windows` of calibration text, and
/// carries everything else along. `out` appears when all of it is complete and on the disk, or not at all.
///
/// Throws what plan_quantization throws; shape_error for unusable windows; io_error where `out` exists, cannot be
/// written or does not fit on the disk; error where the memory is far from enough; non_finite_error naming the tensor or
/// the module for weights (all are looked at before the work) or activations that are NaN or infinite; unsupported_error
/// for a layer whose scales halves cannot hold; and whatever the observer throws.
quantize_result quantize_model(const io::model_folder& folder, const std::filesystem::path& out,
                               const token_windows& windows, const quantize_model_options& options,
                               model_observer_ref observer = {});

/// The same on another backend than the CPU's; the body is in <gptq/model/model_quantizer.hpp>.
template <ModelBackend B>
quantize_result quantize_model(const io::model_folder& folder, const std::filesystem::path& out,
                               const token_windows& windows, const quantize_model_options& options,
                               model_observer_ref observer, const B& backend);

}  // namespace gptq::model

#ifndef GPTQ_COMPILED
#include <gptq/model/impl/quantize_model.hpp>
#endif
