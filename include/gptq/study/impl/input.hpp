// The bodies of <gptq/study/input.hpp>.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include <nlohmann/json.hpp>

#include <gptq/compiled.hpp>
#include <gptq/io/model_folder.hpp>
#include <gptq/model/block_description.hpp>
#include <gptq/model/run_record.hpp>
#include <gptq/study/cell.hpp>
#include <gptq/study/input.hpp>
#include <gptq/version.hpp>

namespace gptq::study {

GPTQ_INLINE nlohmann::ordered_json study_json(const study_input& input) {
    using json = nlohmann::ordered_json;
    json texts = json::array();
    for (const study_text& text : input.texts)
        texts.push_back({{"name", text.name},
                         {"tokens", model::fingerprint_of(text.tokens)},
                         {"count", text.tokens.size()},
                         {"seqlen", input.evaluation.seqlen},
                         {"bos", input.evaluation.bos.has_value()}});
    const auto& calibration = input.calibration;
    const std::string first_block = model::describe_block(input.config, 0).prefix;  // "model.layers.0."
    return {{"version", version_string},
            {"model", input.folder.path().string()},
            {"weights", model::fingerprint_of(input.folder)},
            {"blocks", first_block.substr(0, first_block.size() - 2)},
            {"calibration",
             {{"tokens", model::fingerprint_of(calibration.tokens)},
              {"windows", calibration.count()},
              {"seqlen", calibration.length}}},
            {"texts", texts}};
}

GPTQ_INLINE nlohmann::ordered_json identity_of(const nlohmann::ordered_json& study, const nlohmann::ordered_json& cell,
                                               study_depth depth) {
    nlohmann::ordered_json identity = {{"cell", cell},
                                       {"depth", depth == study_depth::layers ? "layers" : "model"},
                                       {"version", study["version"]},
                                       {"weights", study["weights"]},
                                       {"calibration", study["calibration"]}};
    if (depth == study_depth::layers) return identity;
    identity["texts"] = study["texts"];
    for (auto& text : identity["texts"]) text.erase("name");
    return identity;
}

GPTQ_INLINE std::uint64_t parameters_of(const io::model_folder& folder) {
    std::uint64_t sum = 0;
    for (const std::string& name : folder.tensor_names()) {
        std::uint64_t count = 1;
        for (const std::size_t size : folder.tensor(name).shape) count *= size;
        sum += count;
    }
    return sum;
}

GPTQ_INLINE std::uint64_t tensor_bytes_of(const io::model_folder& folder) {
    std::uint64_t sum = 0;
    for (const std::string& name : folder.tensor_names()) sum += folder.tensor(name).bytes.size();
    return sum;
}

}  // namespace gptq::study
