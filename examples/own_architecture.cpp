// A model that gptq cannot run: inputs come from any framework, the library finds the codes, and a copy of the folder
// gets them.
#include <filesystem>
#include <fstream>
#include <random>
#include <string>

#include <gptq/gptq.hpp>
#include <gptq/io/folder_writer.hpp>
#include <gptq/io/model_folder.hpp>
#include <gptq/io/quantization_config.hpp>
#include <gptq/io/quantized_tensors.hpp>

#include "check.hpp"

namespace {

namespace fs = std::filesystem;
namespace io = gptq::io;

using w4 = gptq::scheme<4, gptq::group_size<32>, gptq::symmetric, gptq::group_aware_order>;

gptq::tensor2<float> random_matrix(std::size_t rows, std::size_t cols, unsigned seed) {
    std::mt19937 generator(seed);
    std::normal_distribution<float> normal;
    auto m = gptq::make_tensor2<float>(rows, cols);
    for (float& x : m) x = normal(generator);
    return m;
}

/// A folder with one linear layer and another tensor, of an architecture that nobody knows.
void write_model(const fs::path& folder) {
    fs::create_directories(folder);
    std::ofstream(folder / "config.json") << R"({"model_type": "my_own"})";
    const auto W = random_matrix(64, 96, 1);  // [N, K]
    io::write_tensors(folder / "model.safetensors", [&](const io::tensor_sink& sink) {
        const std::size_t shape[] = {64, 96}, bias[] = {64};
        sink("mixer.in_proj.weight", io::dtype::f32, shape, std::as_bytes(std::span(W.data(), W.size())));
        sink("mixer.in_proj.bias", io::dtype::f32, bias, std::as_bytes(std::span(W.data(), std::size_t{64})));
    });
}

/// What your program gives the layer for a piece of text.                                          [T, K]
gptq::tensor2<float> inputs_of_my_program(unsigned piece) { return random_matrix(200, 96, 100 + piece); }

}  // namespace

int main(int argc, char** argv) {
    check(argc == 2, "the argument is a folder to work in");
    const fs::path temporary = argv[1];
    fs::remove_all(temporary);
    write_model(temporary / "model");
    const io::model_folder source(temporary / "model");
    const std::string layer = "mixer.in_proj";

    const auto W = source.read_matrix(layer + ".weight");  // [N, K]
    gptq::hessian<float> h(W.shape()[1]);
    for (unsigned piece = 0; piece < 4; ++piece) h.add(inputs_of_my_program(piece));
    const auto q = gptq::quantize<w4>(W, h);

    io::quantization_config config;  // what the new folder says about itself
    config.settings.bits = 4;
    config.settings.group_size = 32;
    config.settings.sym = true;
    config.settings.order = gptq::order_kind::group_aware;
    io::folder_writer out(temporary / "out");
    io::write_quantized(out.sink(), config.format, layer, q);
    for (const std::string& name : source.tensor_names())
        if (name != layer + ".weight") out.copy_tensor(source.tensor(name));
    io::write_configs(out, source, config);
    for (const fs::path& file : source.companion_files()) out.copy_file(file);
    out.finish();

    const io::model_folder written(temporary / "out");
    const auto back = io::read_quantized(written, io::quantization_config::parse(written).value(), layer);
    check(back.codes == q.codes, "the codes are those that were written");
    check(written.contains(layer + ".bias"), "everything else is there");
    fs::remove_all(temporary);
    return 0;
}
