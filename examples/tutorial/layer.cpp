// The first tutorial: a layer and its inputs from two .npy files to the error of its quantized form.
//
//   tutorial_layer W.npy X.npy          W [out_features, in_features] and X [tokens, in_features], of float32
//   tutorial_layer                      makes the two files first, for a layer of random numbers
#include <cstdlib>
#include <filesystem>
#include <iostream>
#include <string>

#include <gptq/gptq.hpp>
#if __has_include(<xtensor/io/xnpy.hpp>)  // xtensor 0.26 and later
#include <xtensor/io/xnpy.hpp>
#else
#include <xtensor/xnpy.hpp>
#endif

#include "../check.hpp"
#include "../random_layer.hpp"

namespace {

/// Writes W.npy and X.npy into `folder`.
void make_files(const std::filesystem::path& folder) {
    std::filesystem::create_directories(folder);
    xt::dump_npy((folder / "W.npy").string(), random_matrix(128, 256, 1));
    xt::dump_npy((folder / "X.npy").string(), random_inputs(4096, 256, 2));
}

/// Quantizes the layer of the two files, and returns the part of its outputs' energy that is wrong.
double quantize(const std::string& weights, const std::string& inputs) {
    //! [read]
    const auto W = xt::load_npy<float>(weights);  // [out_features, in_features]
    const auto X = xt::load_npy<float>(inputs);   // [tokens, in_features]
    //! [read]

    //! [hessian]
    gptq::hessian<float> h(X.shape(1));
    h.add(X);
    //! [hessian]

    //! [quantize]
    using w4 = gptq::scheme<4, gptq::group_size<64>, gptq::symmetric, gptq::group_aware_order>;
    const auto q = gptq::quantize<w4>(W, h);
    const auto r = gptq::round_to_nearest<w4>(W);
    //! [quantize]

    //! [measure]
    const double energy = gptq::output_error(gptq::readable_matrix<float, decltype(W)>(W).view(), h);  // tr(W H W')
    const double error = gptq::layer_error(W, q, h) / energy;                                          // tr(D H D')
    const double rounded = gptq::layer_error(W, r, h) / energy;
    std::cout << "wrong of the outputs' energy: " << 100.0 * error << " %, by rounding to nearest " << 100.0 * rounded
              << " %\n";
    //! [measure]
    check(error < rounded, "GPTQ is better than rounding to nearest");

    //! [use]
    const gptq::tensor2<float> Wq = gptq::dequantize(q);       // float weights again
    xt::dump_npy(weights + ".quantized.npy", Wq);              // for numpy.load
    const auto m = gptq::prepare<gptq::activation::int16>(q);  // laid out for the processor, once
    const auto Y = gptq::matmul(gptq::tensor2<float>(X), m);   // [tokens, out_features]
    const auto words = gptq::pack<gptq::layout::gptq_v2>(q);   // as checkpoints hold the layer
    std::cout << Y.shape(0) << " x " << Y.shape(1) << " outputs, " << words.qweight.size() << " words of codes\n";
    //! [use]
    return error;
}

}  // namespace

int main(int argc, char** argv) try {
    if (argc == 3) {
        quantize(argv[1], argv[2]);
    } else {
        const auto folder = std::filesystem::temp_directory_path() / "gptq-tutorial-layer";
        make_files(folder);
        const double error = quantize((folder / "W.npy").string(), (folder / "X.npy").string());
        check(error < 0.02, "4 bits leave less than 2 % of the energy wrong");
        std::filesystem::remove_all(folder);
    }
    //! [errors]
} catch (const gptq::error& problem) {  // every exception of the library
    std::cerr << problem.what() << '\n';
    return EXIT_FAILURE;
}
//! [errors]
