// The normalizers of tokenizer.json: what happens to text before it is cut into words.
#pragma once

#include <array>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include <gptq/model/tokenizer_json.hpp>

namespace gptq::model::detail {

/// Appends what `make` gives for `node` to `steps`, or for each element of it if it is a Sequence of `key`.
template <class Step, class Make>
void flatten_sequence(const json_node& node, const char* key, std::vector<Step>& steps, const Make& make,
                      int depth = 0) {
    if (node.is_null()) return;
    if (node["type"].text() != "Sequence") {
        steps.push_back(make(node));
        return;
    }
    if (depth == max_nesting) node.fail("sequences nested deeper than " + std::to_string(max_nesting));
    for (const json_node child : node[key].items()) flatten_sequence(child, key, steps, make, depth + 1);
}

/// The 256 characters that stand for bytes in byte-level vocabularies: printable Latin-1 characters stand for
/// themselves, the other bytes in order for U+0100 and what follows.
const std::array<char32_t, 256>& byte_characters();

/// Appends every byte of `text` as the character that stands for it.
void append_byte_characters(std::string& out, std::string_view text);

/// Valid UTF-8 in, valid UTF-8 out.
using normalizer_step = std::function<std::string(std::string)>;

normalizer_step make_normalizer_step(const json_node& node);

/// Every normalizer of a file, in order.
class normalizer {
 public:
    explicit normalizer(const json_node& node) { flatten_sequence(node, "normalizers", steps_, make_normalizer_step); }

    /// Throws unsupported_error where the text grows beyond what check_growth allows.
    std::string operator()(std::string text) const;

 private:
    std::vector<normalizer_step> steps_;
};

}  // namespace gptq::model::detail

#ifndef GPTQ_COMPILED
#include <gptq/model/impl/tokenizer_normalizers.hpp>
#endif
