// A tokenizer.json of any bytes and a text of any bytes, parted by a zero byte.
#include <gptq/model/tokenizer.hpp>

#include "fuzz.hpp"

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    static const gptq_fuzz::scratch_folder folder;
    auto rest = gptq_fuzz::text_of(data, size);
    folder.write("tokenizer.json", gptq_fuzz::take_part(rest));
    gptq_fuzz::survives([&] {
        const auto tokens = gptq::model::tokenizer::load(folder.path());
        const auto ids = tokens.encode_whole(rest);
        for (const auto id : ids)
            gptq_fuzz::require(id >= 0 && static_cast<std::size_t>(id) < tokens.vocab_size(), "an id out of range");
        tokens.decode(ids, false);
    });
    return 0;
}
