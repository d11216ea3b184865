// A text to calibrate with of any bytes: UTF-8, UTF-16, gzip, JSON Lines.
#include <gptq/io/text.hpp>

#include "fuzz.hpp"

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    static const gptq_fuzz::scratch_folder folder;
    const auto path = folder.write("text", gptq_fuzz::text_of(data, size));
    gptq_fuzz::survives([&] { gptq::io::read_text(path.string()); });
    return 0;
}
