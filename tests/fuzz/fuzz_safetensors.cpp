// A safetensors file of any bytes: what is accepted can be read, all of it.
#include <numeric>

#include <gptq/io/safetensors.hpp>

#include "fuzz.hpp"

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    static const gptq_fuzz::scratch_folder folder;
    const auto path = folder.write("x.safetensors", gptq_fuzz::text_of(data, size));
    gptq_fuzz::survives([&] {
        const gptq::io::safetensors_file file(path);
        std::size_t covered = 0;
        for (const auto& tensor : file.tensors()) {
            covered += tensor.bytes.read().size();
            gptq_fuzz::require(file.find(tensor.name) == &tensor, "a tensor is not found by its name");
        }
        gptq_fuzz::require(covered < size, "tensors are larger than the file");
    });
    return 0;
}
