// Uses one thing of gptq::model: opening a folder that does not exist says so.
#include <gptq/error.hpp>
#include <gptq/io/model_folder.hpp>
#include <iostream>

int main() {
    try {
        const gptq::io::model_folder model("no such folder");
    } catch (const gptq::error& e) {
        std::cout << e.what() << '\n';
        return 0;
    }
    return 1;
}
