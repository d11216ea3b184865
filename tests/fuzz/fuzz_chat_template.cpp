// A chat template of any bytes and a message of any bytes, parted by a zero byte.
#include <gptq/model/chat_template.hpp>

#include "fuzz.hpp"

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    auto rest = gptq_fuzz::text_of(data, size);
    const std::string source(gptq_fuzz::take_part(rest));
    const std::string user(rest);
    gptq_fuzz::survives([&] {
        const gptq::model::chat_template chat(source, "template");
        for (const std::string& system : {std::string(), user}) {
            const std::string prompt = chat.render(user, system);
            gptq_fuzz::require(prompt.size() <= 4 * size + 1000, "a prompt that grows");
        }
    });
    return 0;
}
