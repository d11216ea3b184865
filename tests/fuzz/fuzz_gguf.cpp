// A GGUF file of any bytes: what is accepted as a model's folder can be read, all of it, and so can its tokenizer.
#include <gptq/io/gguf.hpp>
#include <gptq/io/model_folder.hpp>
#include <gptq/model/tokenizer.hpp>

#include "fuzz.hpp"

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    static const gptq_fuzz::scratch_folder folder;
    const auto path = folder.write("x.gguf", gptq_fuzz::text_of(data, size));
    gptq_fuzz::survives([&] {
        const gptq::io::gguf_file file(path);
        std::size_t covered = 0;
        for (const auto& tensor : file.tensors()) covered += tensor.bytes.read().size();
        gptq_fuzz::require(covered < size, "tensors are larger than the file");
    });
    gptq_fuzz::survives([&] {
        const gptq::io::model_folder model(path);
        for (const std::string& name : model.tensor_names()) {
            const auto& tensor = model.tensor(name);
            gptq_fuzz::require(tensor.bytes.read().size() == tensor.bytes.size(), "a tensor of another size");
        }
    });
    gptq_fuzz::survives([&] { gptq::model::tokenizer::load(path).encode_whole("Some words, 12 of them."); });
    return 0;
}
