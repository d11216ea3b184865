// A model's config.json of any bytes.
#include <gptq/io/json.hpp>
#include <gptq/model/model_config.hpp>

#include "fuzz.hpp"

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    static const gptq_fuzz::scratch_folder folder;
    const auto path = folder.write("config.json", gptq_fuzz::text_of(data, size));
    gptq_fuzz::survives([&] {
        const auto config = gptq::model::parse_model_config(gptq::io::read_model_json(path), path.string());
        gptq_fuzz::require(config.blocks > 0 && config.hidden_size > 0 && config.vocab_size > 0, "a size of 0");
    });
    return 0;
}
