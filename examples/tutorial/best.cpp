// The third tutorial: what --best consists of, piece by piece, on one layer of a model.
//
//   tutorial_best MODEL CALIB TEXT
#include <cstddef>
#include <cstdlib>
#include <filesystem>
#include <iostream>
#include <string>
#include <utility>

#include <gptq/gptq.hpp>
#include <gptq/io/text.hpp>
#include <gptq/model.hpp>
#include <gptq/model/embedding.hpp>
#include <gptq/model/stages.hpp>

#include "../check.hpp"

namespace {

using gptq::matrix;
using gptq::matrix_view;
namespace model = gptq::model;

const std::string layer_name = "model.layers.1.mlp.down_proj";

//! [inputs]
/// What the layer reads while the model of `folder` reads `windows`: [tokens, in_features].
matrix<float> inputs_of(const gptq::io::model_folder& folder, const model::token_windows& windows) {
    const model::cpu_model_backend cpu(model::quantized_form::dense);
    const auto config = model::read_model_config(folder);
    model::calibration_states states(cpu, config, model::load_embedding(config, folder, cpu), windows, false);
    matrix<float> X(windows.tokens.size(), config.intermediate_size);
    for (std::size_t block = 0; block <= 1; ++block) {
        auto weights = model::load_block(config, folder, block, cpu);
        model::run_block_by_stages(cpu, config, weights, nullptr, block, states, [&](auto& site, const auto& read) {
            if (site.names.front() != layer_name) return;
            read.for_each([&](const auto& some) {  // windows come some at a time
                const auto part = X.view().block(some.first_token, some.inputs.rows, 0, X.cols());
                cpu.solver().download(some.inputs, part);
            });
        });
    }
    return X;
}
//! [inputs]

/// Rows [first, last) of a matrix.
matrix_view<const float> rows(const matrix<float>& m, std::size_t first, std::size_t last) {
    return m.view().block(first, last - first, 0, m.cols());
}

/// The layer, and what it reads: in the float model, and in a quantized model, whose earlier layers have errors.
struct setting {
    gptq::tensor2<float> W;          // [N, K]
    matrix<float> float_X, X;        // [T, K], to calibrate with
    matrix<float> float_new, new_X;  // [T, K], of another text
};

//! [distance]
/// Mean square of Y~ - Y on another text: Y~ are the outputs of the float model's layer, Y those of the weights Wq on
/// what the layer reads in the quantized model.                                                           Wq [N, K]
double distance(const setting& s, const gptq::tensor2<float>& Wq) {
    double sum = 0.0;
    for (std::size_t t = 0; t < s.new_X.rows(); ++t)
        for (std::size_t n = 0; n < s.W.shape(0); ++n) {
            double difference = 0.0;
            for (std::size_t k = 0; k < s.W.shape(1); ++k)
                difference += double{s.W(n, k)} * s.float_new(t, k) - double{Wq(n, k)} * s.new_X(t, k);
            sum += difference * difference;
        }
    return sum / static_cast<double>(s.new_X.rows());
}
//! [distance]

/// Prints a line, and returns the distance.
double report(const std::string& what, const setting& s, const gptq::tensor2<float>& Wq) {
    const double d = distance(s, Wq);
    std::cout << what << ": " << d << '\n';
    return d;
}

//! [drift]
/// The weights to quantize in place of W: three quarters of the tokens say which, the last quarter how far to go.
gptq::tensor2<float> corrected(const setting& s) {
    using cpu = gptq::cpu_backend;
    const std::size_t T = s.X.rows(), cut = T / 4 * 3, K = s.X.cols();
    gptq::basic_drift<cpu> fit_drift(K), held_drift(K);
    fit_drift.add(rows(s.float_X, 0, cut), rows(s.X, 0, cut));
    held_drift.add(rows(s.float_X, cut, T), rows(s.X, cut, T));
    gptq::hessian<float> fit(K), held(K);
    fit.add(rows(s.X, 0, cut));
    held.add(rows(s.X, cut, T));
    using order_only = gptq::scheme<3, gptq::group_size<32>, gptq::symmetric, gptq::group_aware_order>;
    const gptq::drift_statistics<cpu, gptq::inverse_free_path> drift{
        std::move(fit_drift), std::move(held_drift), gptq::factorize<order_only>(fit, {.damp_percent = 0.1}), held};
    auto W = s.W;
    const double strength = gptq::correct_drift(gptq::view_of(W), drift);
    std::cout << "the correction's strength: " << strength << '\n';
    return W;
}
//! [drift]

void show(const setting& s) {
    gptq::hessian<float> h(s.X.cols());
    h.add(s.X.view());
    //! [pieces]
    using gptq::group_size, gptq::symmetric;
    using published = gptq::scheme<3, group_size<32>, symmetric, gptq::natural_order>;
    using ordered = gptq::scheme<3, group_size<32>, symmetric, gptq::group_aware_order>;
    using searched = gptq::scheme<3, group_size<32>, gptq::searched_by_loss<symmetric>, gptq::group_aware_order>;

    const auto r = gptq::round_to_nearest<published>(s.W);
    const auto a = gptq::quantize<published>(s.W, h);
    const auto b = gptq::quantize<ordered>(s.W, h);
    const auto c = gptq::quantize<ordered>(s.W, h, {.choose_damping = true});
    const auto d = gptq::quantize<searched>(s.W, h, {.choose_damping = true});
    const auto e = gptq::quantize<searched>(s.W, h, {.choose_damping = true, .candidates = 8});
    const gptq::quantize_options best{.choose_damping = true, .refine = {.rounds = 1}, .candidates = 8};
    const auto f = gptq::quantize<searched>(s.W, h, best);
    const auto g = gptq::quantize<searched>(corrected(s), h, best);
    //! [pieces]
    const double nearest = report("round-to-nearest", s, gptq::dequantize(r));
    const double first = report("GPTQ as published", s, gptq::dequantize(a));
    report("group-aware order", s, gptq::dequantize(b));
    report("and damping by the layer", s, gptq::dequantize(c));
    const double by_search = report("and search by loss", s, gptq::dequantize(d));
    report("and 8 candidates", s, gptq::dequantize(e));
    report("and a round of refinement", s, gptq::dequantize(f));
    const double all = report("and the correction of drift", s, gptq::dequantize(g));
    check(first < nearest && by_search < first && all < by_search, "each of the large pieces helps");
}

}  // namespace

int main(int argc, char** argv) try {
    if (argc != 4) {
        std::cerr << "usage: tutorial_best MODEL CALIB TEXT\n";
        return EXIT_FAILURE;
    }
    const gptq::io::model_folder folder(argv[1]);
    const auto tokens = model::tokenizer::load(folder.path());
    const auto windows = [&](const char* file, std::size_t count) {
        return model::calibration_windows(tokens, gptq::io::read_text(file).text, count, 256, std::nullopt);
    };
    const auto calib = windows(argv[2], 32), text = windows(argv[3], 4);

    // A quantized model, for its earlier layers' errors.
    const auto out = std::filesystem::temp_directory_path() / "gptq-tutorial-best";
    std::filesystem::remove_all(out);
    model::quantize_model_options options;
    options.config.settings = gptq::settings::recommended(3);
    options.config.settings.group_size = 32;
    (void)model::quantize_model(folder, out, calib, options);
    const gptq::io::model_folder quantized(out);
    const auto weights = folder.read_matrix(layer_name + ".weight");
    show({weights, inputs_of(folder, calib), inputs_of(quantized, calib), inputs_of(folder, text),
          inputs_of(quantized, text)});
    std::filesystem::remove_all(out);
} catch (const gptq::error& problem) {
    std::cerr << problem.what() << '\n';
    return EXIT_FAILURE;
}
