// A grid of one's own on a whole model: NF4 by GPTQ, in memory, and its perplexity.
//
//     own_model FOLDER CALIBRATION_TEXT TEXT
#include <iostream>
#include <string>

#include <gptq/grids/nf4.hpp>
#include <gptq/io/text.hpp>
#include <gptq/model.hpp>

#include "check.hpp"

namespace model = gptq::model;

int main(int argc, char** argv) {
    check(argc == 4, "three arguments: the folder of a model, a text to calibrate with and one to score");
    const gptq::io::model_folder folder(argv[1]);
    const auto tokenizer = model::tokenizer::load(folder.path());
    const auto windows = model::calibration_windows(tokenizer, gptq::io::read_text(argv[2]).text, 16, 128, {});
    using grid = gptq::scheme<4, gptq::group_size<64>, gptq::searched_by_loss<gptq::nf4>>;
    const auto quantized =
        model::quantize_in_memory(folder, windows, [](const std::string&, auto W, const gptq::hessian<float>& H) {
            return model::made_layer(gptq::quantized_layer(gptq::quantize<grid>(W, H)));
        });
    auto tokens = tokenizer.encode_whole(gptq::io::read_text(argv[3]).text);
    tokens.resize(4096);
    const double nf4 = model::evaluate_perplexity(quantized, tokens, {.seqlen = 256}).perplexity;
    const double before = model::evaluate_perplexity(model::decoder::load(folder), tokens, {.seqlen = 256}).perplexity;
    std::cout << "perplexity " << nf4 << " in NF4, " << before << " before\n";
    check(nf4 > before && nf4 < 1.02 * before, "NF4 costs little");
}
