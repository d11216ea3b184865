// The decoders of tokenizer.json: how the tokens of a sequence of ids become text again.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include <gptq/model/tokenizer_json.hpp>
#include <gptq/model/tokenizer_normalizers.hpp>

namespace gptq::model::detail {

/// The tokens of a text, in order; their concatenation after the last step is the text.
using token_list = std::vector<std::string>;
using decoder_step = std::function<token_list(token_list)>;

decoder_step make_decoder_step(const json_node& node);

/// Every decoder of a file, in order.
class token_decoder {
 public:
    explicit token_decoder(const json_node& node) { flatten_sequence(node, "decoders", steps_, make_decoder_step); }

    std::string operator()(token_list tokens) const;

 private:
    static std::string join_by_spaces(const token_list& tokens);

    std::vector<decoder_step> steps_;
};

}  // namespace gptq::model::detail

#ifndef GPTQ_COMPILED
#include <gptq/model/impl/tokenizer_decoders.hpp>
#endif
