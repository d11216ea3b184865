// Runs a fuzz target without libFuzzer: over every file of a corpus, and then for some seconds over files of it with
// bytes changed, cut and repeated. What is run is the same every time but for its end.
//
//     fuzz_NAME CORPUS SECONDS
#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <iterator>
#include <random>
#include <string>
#include <vector>

#include "fuzz.hpp"

namespace {

void run(const std::string& input) {
    LLVMFuzzerTestOneInput(reinterpret_cast<const std::uint8_t*>(input.data()), input.size());
}

std::string changed(std::string text, const std::string& other, std::mt19937& random) {
    const auto place = [&](std::size_t size) { return size == 0 ? 0 : random() % size; };
    for (int left = 1 + static_cast<int>(random() % 4); left > 0; --left) {
        const std::size_t at = place(text.size()), count = place(16);
        switch (random() % 6) {
            case 0:
                if (!text.empty()) text[at] = static_cast<char>(random() % 256);
                break;
            case 1:
                if (!text.empty()) text[at] = static_cast<char>(text[at] ^ (1 << random() % 8));
                break;
            case 2: text.erase(at, count); break;
            case 3: text.insert(at, text.substr(place(text.size()), count)); break;
            case 4: text.insert(at, other.substr(place(other.size()), 4 * count)); break;
            default: text.insert(at, std::string(count, "0\"[{,\0\xff"[random() % 7])); break;
        }
    }
    return text;
}

}  // namespace

int main(int argc, char** argv) {
    if (argc != 3) return 2;
    std::vector<std::string> corpus;
    std::vector<std::filesystem::path> files(std::filesystem::directory_iterator(argv[1]), {});
    std::sort(files.begin(), files.end());
    for (const auto& file : files) {
        std::ifstream stream(file, std::ios::binary);
        corpus.emplace_back(std::istreambuf_iterator<char>(stream), std::istreambuf_iterator<char>());
        run(corpus.back());
    }
    if (corpus.empty()) return 2;
    std::mt19937 random(1);
    const auto end = std::chrono::steady_clock::now() + std::chrono::duration<double>(std::atof(argv[2]));
    std::size_t runs = corpus.size();
    for (; std::chrono::steady_clock::now() < end; ++runs)
        run(changed(corpus[random() % corpus.size()], corpus[random() % corpus.size()], random));
    std::cout << runs << " inputs\n";
}
