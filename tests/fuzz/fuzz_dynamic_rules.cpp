// Rules of any bytes, matched against a name of any bytes, parted by a zero byte.
#include <gptq/io/dynamic_rules.hpp>
#include <gptq/io/json.hpp>

#include "fuzz.hpp"

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    auto rest = gptq_fuzz::text_of(data, size);
    const auto name = gptq_fuzz::take_part(rest);
    gptq_fuzz::survives([&] {
        const auto json = gptq::io::parse_json<nlohmann::ordered_json>(rest, "rules");
        const gptq::io::dynamic_rules rules(json, "rules", gptq::io::unknown_settings::kept);
        const auto effect = rules.match(name);
        gptq_fuzz::require(!effect.bits || (*effect.bits >= 2 && *effect.bits <= 8), "bits out of range");
    });
    return 0;
}
