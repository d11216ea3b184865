// The pre-tokenizers of tokenizer.json: how normalized text is cut into the words that the model then sees one by one.
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include <gptq/model/tokenizer_json.hpp>
#include <gptq/model/tokenizer_regex.hpp>

namespace gptq::model::detail {

/// A word, as a range of bytes in pre_tokenized::text.
struct word_range {
    byte_range range;
    bool at_text_start;  ///< It is the first of the text, and no added token lies before it.
};

/// Text and the words it is cut into. Words may leave gaps, which are lost, and are never empty.
struct pre_tokenized {
    std::string text;
    std::vector<word_range> words;

    std::string_view view(byte_range range) const;
};

/// Changes the text, or the words, or both.
using pre_tokenizer_step = std::function<void(pre_tokenized&)>;

/// Where Metaspace puts its mark in front of a word that does not begin with one.
enum class prepend_scheme { always, first, never };

prepend_scheme parse_prepend_scheme(const json_node& metaspace);

/// Every pre-tokenizer of a file, in order.
class pre_tokenizer {
 public:
    explicit pre_tokenizer(const json_node& node);

    /// `text` is one stretch between added tokens; `at_text_start` says that none lies before it.
    pre_tokenized operator()(std::string text, bool at_text_start) const;

 private:
    std::vector<pre_tokenizer_step> steps_;
};

}  // namespace gptq::model::detail

#ifndef GPTQ_COMPILED
#include <gptq/model/impl/tokenizer_pretokenizers.hpp>
#endif
