// Any bytes as config.json and as the index of shards, parted by a zero byte, beside one shard that is right.
#include <gptq/io/model_folder.hpp>

#include "fuzz.hpp"

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    static const gptq_fuzz::scratch_folder folder;
    static const std::string header = R"({"t":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}})";
    static const auto shard = folder.write(
        "a.safetensors", std::string(1, static_cast<char>(header.size())) + std::string(7, '\0') + header + "x");
    auto rest = gptq_fuzz::text_of(data, size);
    folder.write("config.json", gptq_fuzz::take_part(rest));
    folder.write("model.safetensors.index.json", rest);
    gptq_fuzz::survives([&] {
        const gptq::io::model_folder model(folder.path());
        for (const auto& file : model.weight_files())
            gptq_fuzz::require(file.path() == shard, "a file outside the folder was opened");
        for (const auto& name : model.tensor_names()) model.require_finite(name);
    });
    return 0;
}
