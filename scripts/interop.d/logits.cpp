// logits MODEL IDS OUT: reads token ids (a text file, white space between them), runs the model over them as one text,
// and writes the logits after each of them to OUT: float32, [tokens, vocab_size], in the machine's byte order.
#include <cstdint>
#include <cstdlib>
#include <exception>
#include <fstream>
#include <iostream>
#include <iterator>
#include <vector>

#include <gptq/io/model_folder.hpp>
#include <gptq/model/decoder.hpp>

int main(int argc, char** argv) try {
    if (argc != 4) {
        std::cerr << "usage: logits MODEL IDS OUT\n";
        return 2;
    }
    std::ifstream text(argv[2]);
    const std::vector<std::int32_t> ids(std::istream_iterator<std::int32_t>(text), {});
    const auto logits = gptq::model::decoder::load(gptq::io::model_folder(argv[1])).logits(ids);

    std::ofstream out(argv[3], std::ios::binary);
    out.write(reinterpret_cast<const char*>(logits.data()),
              static_cast<std::streamsize>(logits.size() * sizeof(*logits.data())));
    out.close();
    if (!text.eof() || !out) {
        std::cerr << "logits: " << (out ? argv[2] : argv[3]) << ": "
                  << (out ? "not a list of ids" : "cannot be written") << '\n';
        return EXIT_FAILURE;
    }
    return EXIT_SUCCESS;
} catch (const std::exception& problem) {
    std::cerr << "logits: " << problem.what() << '\n';
    return EXIT_FAILURE;
}
