// The bodies of <gptq/model/decoder.hpp> that are no templates.
#pragma once

#include <algorithm>
#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include <gptq/compiled.hpp>
#include <gptq/error.hpp>
#include <gptq/io/model_folder.hpp>
#include <gptq/model/adapter.hpp>
#include <gptq/model/block.hpp>
#include <gptq/model/block_description.hpp>
#include <gptq/model/decoder.hpp>
#include <gptq/model/embedding.hpp>
#include <gptq/model/head.hpp>
#include <gptq/model/model_config.hpp>
#include <gptq/model/weights.hpp>
#include <gptq/quote.hpp>

namespace gptq::model {

GPTQ_INLINE stored_model read_stored_model(const io::model_folder& folder, std::span<const adapter> adapters) {
    const auto weights = std::make_shared<const weight_reader>(folder);
    stored_model read;
    read.config = read_model_config(folder);
    read.embedding = read_embedding(read.config, *weights);
    read.head_inputs = read_head_inputs(read.config, *weights);
    read.head = read_head(read.config, *weights);
    check_adapters(read.config, read.head.has_value(), adapters);
    if (read.head) add_terms(*read.head, std::string(read.config.arch.names.head), adapters);
    read.block = [config = read.config, weights, adapters](std::size_t i) {
        return read_block(config, *weights, i, adapters);
    };
    return read;
}

GPTQ_INLINE std::vector<std::string> observable_names(const model_config& config) {
    std::vector<std::string> names;
    for (std::size_t i = 0; i < config.blocks; ++i) {
        const block_description block = describe_block(config, i);
        for (const block_site& site : block.sites)
            for (const block_module& m : site.modules) names.push_back(block.full_name(m) + ".input");
        names.push_back(block.prefix + "output");
    }
    names.push_back(std::string(config.arch.names.head) + ".input");
    names.emplace_back("logits");
    return names;
}

namespace detail {

GPTQ_INLINE void check_observable(const model_config& config, std::span<const std::string> wanted) {
    const std::vector<std::string> names = observable_names(config);
    for (const std::string& name : wanted) {
        if (std::find(names.begin(), names.end(), name) != names.end()) continue;
        std::string there;
        const std::string later = config.block_prefix(0);
        for (const std::string& n : names)
            if (n.starts_with(later) || n == "logits" || n == std::string(config.arch.names.head) + ".input")
                there += (there.empty() ? "" : ", ") + n;
        throw option_error(in_quotes(name) + " is nothing that this model computes; there are " + there +
                           ", and those of the other blocks up to " + config.block_prefix(config.blocks - 1) +
                           "output");
    }
}

}  // namespace detail

}  // namespace gptq::model
