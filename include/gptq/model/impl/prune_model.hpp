// The bodies of <gptq/model/prune_model.hpp>.
#pragma once

#include <algorithm>
#include <cstddef>
#include <filesystem>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include <gptq/backends/cpu/model_backend.hpp>
#include <gptq/compiled.hpp>
#include <gptq/error.hpp>
#include <gptq/factor.hpp>
#include <gptq/hessian.hpp>
#include <gptq/io/folder_writer.hpp>
#include <gptq/io/model_folder.hpp>
#include <gptq/io/quantization_config.hpp>
#include <gptq/io/stored_numbers.hpp>
#include <gptq/layer_error.hpp>
#include <gptq/matrix_view.hpp>
#include <gptq/model/calibration_states.hpp>
#include <gptq/model/embedding.hpp>
#include <gptq/model/folder_warnings.hpp>
#include <gptq/model/model_config.hpp>
#include <gptq/model/model_quantizer.hpp>
#include <gptq/model/prune_model.hpp>
#include <gptq/model/stages.hpp>

namespace gptq::model {
namespace detail {

/// One run of prune_model.
class model_pruner {
 public:
    model_pruner(const model_config& config, const io::model_folder& folder, const prune_model_options& options,
                 io::folder_writer& writer, model_observer_ref observer)
        : config_(config), folder_(folder), options_(options), writer_(writer), observer_(observer) {}

    prune_result run(const token_windows& windows) {
        calibration_states states(backend_, config_, load_embedding(config_, folder_, backend_), windows, false);
        block_reader blocks(config_, folder_, false);
        for (block_ = 0; block_ < config_.blocks; ++block_) {
            auto block = hold_block(backend_, blocks.take(block_));
            run_block_by_stages(backend_, config_, block, nullptr, block_, states,
                                [&](stage_modules<weights>& stage, const inputs& x) { prune_stage(stage, x); });
        }
        for (const std::string& name : folder_.tensor_names())
            if (!written_.contains(name)) writer_.copy_tensor(folder_.tensor(name));
        if (const std::string left = left_files_warning(folder_); !left.empty()) result_.warnings.push_back(left);
        result_.zeros = all_ > 0.0 ? zeros_ / all_ : 0.0;
        result_.bytes = writer_.tensor_bytes();
        return std::move(result_);
    }

 private:
    using solver = solver_of<cpu_model_backend>;
    using weights = cpu_model_backend::weights;
    using inputs = stage_inputs<cpu_model_backend::activation>;
    using factor = factored_hessian<solver, inverse_free_path>;

    /// Layers with a common input: one Hessian, one factorization where somebody needs it.
    void prune_stage(stage_modules<weights>& stage, const inputs& x) {
        basic_hessian<solver> H(x.features, backend_.solver());
        x.for_each([&](const auto& chunk) { backend_.add_tokens(H, chunk.inputs); });
        std::optional<factor> f;
        if (!options_.by_magnitude) f.emplace(factor_for(stage.names.front(), H));
        for (std::size_t i = 0; i < stage.modules.size(); ++i) prune_module(stage.names[i], *stage.modules[i], H, f);
    }

    factor factor_for(const std::string& name, const basic_hessian<solver>& H) const {
        try {
            return factor_hessian<natural_order>(backend_.solver(), H.upper(), H.in_features(), options_.solver, {}, {},
                                                 H.samples());
        } catch (const non_finite_error& problem) {
            throw non_finite_error(name + ": " + problem.what());
        }
    }

    void prune_module(const std::string& name, weights& layer, const basic_hessian<solver>& H,
                      const std::optional<factor>& f) {
        observer_.on_progress(static_cast<double>(block_) / static_cast<double>(config_.blocks), name);
        const std::string tensor = name + ".weight";
        const auto held = backend_.floats(layer);
        const matrix_view<const float> W = held.view();  // [N, K]
        matrix<float> by_size(W.rows, W.cols);
        prune_by_magnitude(in_backend, backend_.solver(), W, options_.pattern, by_size.view());
        module_record record{.layer = block_, .module = name, .samples = H.samples()};
        record.rtn_error = error_of(W, by_size.view(), H);
        matrix<float> Q = by_size;
        if (f) {
            const solve_report report =
                prune(in_backend, W, *f, Q.view(), options_.pattern, options_.solver, observer_);
            record.damp_percent = report.damp_percent;
            if (report.rounded_to_nearest)
                result_.warnings.push_back(name +
                                           ": pruned by magnitude, no damping made its Hessian positive definite");
        }
        write(tensor, Q.view());
        record.error = error_of(W, Q.view(), H);
        backend_.replace(layer, std::as_const(Q).view());
        observer_.on_module(record);
        result_.modules.push_back(std::move(record));
    }

    /// tr(D H D') for D = W - Q.
    static double error_of(matrix_view<const float> W, matrix_view<const float> Q, const basic_hessian<solver>& H) {
        matrix<float> D(W.rows, W.cols);
        for (std::size_t n = 0; n < W.rows; ++n)
            for (std::size_t k = 0; k < W.cols; ++k) D(n, k) = W(n, k) - Q(n, k);
        return output_error(in_backend, std::as_const(D).view(), H);
    }

    /// Writes Q, which becomes what the file holds.
    void write(const std::string& name, matrix_view<float> Q) {
        const io::tensor_info& source = folder_.tensor(name);
        writer_.add_tensor(name, source.dtype, source.shape, io::stored_as(source.dtype, Q, folder_.describe(name)));
        written_.insert(name);
        for (std::size_t n = 0; n < Q.rows; ++n)
            zeros_ += static_cast<double>(std::count(Q.row(n).begin(), Q.row(n).end(), 0.0f));
        all_ += static_cast<double>(Q.rows * Q.cols);
    }

    cpu_model_backend backend_{quantized_form::dense};
    const model_config& config_;
    const io::model_folder& folder_;
    const prune_model_options& options_;
    io::folder_writer& writer_;
    model_observer_ref observer_;
    std::size_t block_ = 0;
    std::set<std::string> written_;
    double zeros_ = 0.0, all_ = 0.0;
    prune_result result_;
};

}  // namespace detail

GPTQ_INLINE prune_result prune_model(const io::model_folder& folder, const std::filesystem::path& out,
                                     const token_windows& windows, const prune_model_options& options,
                                     model_observer_ref observer) {
    if (io::holds_quantized_tensors(folder))
        throw unsupported_error(folder.path().string() + ": is quantized; prune the float model, and quantize that");
    check_options(options.solver);
    const model_config config = read_model_config(folder);
    detail::check_windows(config, windows);
    io::folder_writer writer(out);
    prune_result result = detail::model_pruner(config, folder, options, writer, observer).run(windows);
    writer.copy_file(folder.path() / "config.json");
    for (const std::filesystem::path& file : folder.companion_files()) writer.copy_file(file);
    writer.finish();
    return result;
}

}  // namespace gptq::model
