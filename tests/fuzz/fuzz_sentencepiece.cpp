// A tokenizer.model of any bytes.
#include <gptq/model/tokenizer.hpp>

#include "fuzz.hpp"

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    static const gptq_fuzz::scratch_folder folder;
    folder.write("tokenizer.model", gptq_fuzz::text_of(data, size));
    gptq_fuzz::survives([&] {
        const auto tokens = gptq::model::tokenizer::load(folder.path());
        const auto ids = tokens.encode_whole("Some words,  12 of them.\n\xe5\xa4\xa7\xff");
        tokens.decode(ids, false);
    });
    return 0;
}
