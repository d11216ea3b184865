// A description of a quantization of any bytes: what is accepted means the same when it is written and read again.
#include <gptq/io/json.hpp>
#include <gptq/io/quantization_config.hpp>

#include "fuzz.hpp"

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    using gptq::io::quantization_config;
    gptq_fuzz::survives([&] {
        const auto text = gptq_fuzz::text_of(data, size);
        const auto config =
            quantization_config::from_json(gptq::io::parse_json<nlohmann::ordered_json>(text, "config"), "config");
        const auto written = config.to_json();
        const auto again = quantization_config::from_json(written, "again");
        gptq_fuzz::require(again.to_json() == written, "a description changes when it is written and read");
    });
    return 0;
}
