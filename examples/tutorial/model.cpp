// The second tutorial: a whole model from a folder to text.
//
//   tutorial_model MODEL CALIB TEXT OUT PROMPT
#include <algorithm>
#include <cstddef>
#include <cstdlib>
#include <filesystem>
#include <iostream>
#include <random>
#include <string>

#include <gptq/io/text.hpp>
#include <gptq/model.hpp>

#include "../check.hpp"

namespace {

//! [score]
double perplexity(const gptq::model::decoder& model, const gptq::model::tokenizer& tokens, const std::string& text) {
    auto ids = tokens.encode_whole(gptq::io::read_text(text).text);
    ids.resize(std::min<std::size_t>(ids.size(), 4096));
    return gptq::model::evaluate_perplexity(model, ids, {.seqlen = 256}).perplexity;
}
//! [score]

//! [generate]
std::string continued(const gptq::model::decoder& model, const gptq::model::tokenizer& tokens,
                      const std::string& prompt) {
    auto ids = tokens.encode_whole(prompt);
    std::mt19937_64 random(1);
    const auto more = gptq::model::generate(model, ids, {.max_tokens = 40, .sampling = {.temperature = 0.7}}, random);
    ids.insert(ids.end(), more.begin(), more.end());
    return tokens.decode(ids);
}
//! [generate]

void run(const std::string& model, const std::string& calib, const std::string& text, const std::string& out,
         const std::string& prompt) {
    //! [open]
    const gptq::io::model_folder folder(model);
    const auto config = gptq::model::read_model_config(folder);
    const auto tokens = gptq::model::tokenizer::load(folder.path());
    //! [open]

    //! [windows]
    constexpr std::size_t count = 32, length = 256;
    const auto windows = gptq::model::calibration_windows(tokens, gptq::io::read_text(calib).text, count, length,
                                                          gptq::model::window_bos(config, tokens));
    //! [windows]

    //! [quantize]
    gptq::model::quantize_model_options options;
    options.config.settings = gptq::settings::recommended(4);
    options.config.settings.group_size = 32;
    const auto result = gptq::model::quantize_model(folder, out, windows, options);
    for (const std::string& warning : result.warnings) std::cerr << warning << '\n';
    //! [quantize]
    std::cout << result.modules.size() << " layers, " << result.bits_per_weight << " bits a weight, " << result.bytes
              << " bytes\n";

    //! [load]
    const auto before = gptq::model::decoder::load(folder);
    const auto after = gptq::model::decoder::load(gptq::io::model_folder(out));
    //! [load]
    const double float_perplexity = perplexity(before, tokens, text), quantized = perplexity(after, tokens, text);
    std::cout << "perplexity " << float_perplexity << " before, " << quantized << " after\n"
              << continued(after, tokens, prompt) << '\n';
    check(quantized > float_perplexity && quantized < 1.02 * float_perplexity, "4 bits cost less than 2 %");
}

}  // namespace

int main(int argc, char** argv) try {
    if (argc != 6) {
        std::cerr << "usage: tutorial_model MODEL CALIB TEXT OUT PROMPT\n";
        return EXIT_FAILURE;
    }
    run(argv[1], argv[2], argv[3], argv[4], argv[5]);
} catch (const gptq::error& problem) {
    std::cerr << problem.what() << '\n';
    return EXIT_FAILURE;
}
