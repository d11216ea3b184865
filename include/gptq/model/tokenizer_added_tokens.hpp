// Added tokens: the strings that tokenizer.json wants found in a text before anything else happens to it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include <gptq/model/tokenizer_json.hpp>
#include <gptq/model/tokenizer_prefix_tree.hpp>
#include <gptq/model/tokenizer_vocabulary.hpp>

namespace gptq::model::detail {

/// One entry of "added_tokens".
struct added_token {
    std::string content;
    std::int32_t id;
    bool special;      ///< Control token: decode() can leave it out.
    bool normalized;   ///< Looked for in the normalized text, in its own normalized form; else in the text as it is.
    bool single_word;  ///< Only where no word character stands beside it.
    bool lstrip;       ///< Takes the white space to its left with it.
    bool rstrip;       ///< Takes the white space to its right with it.
};

added_token parse_added_token(const json_node& node);

bool starts_with_word_character(std::string_view text);

bool ends_with_word_character(std::string_view text);

/// The bytes of white space that `text` begins with.
std::size_t leading_space(std::string_view text);

/// Where the white space that `text` ends with begins.
std::size_t trailing_space(std::string_view text);

/// All added tokens of a file.
class added_tokens {
 public:
    /// `normalize` is the file's normalizer.
    template <class Normalize>
    added_tokens(const json_node& node, const Normalize& normalize) {
        if (!node.is_null()) {
            for (const json_node& entry : node.items()) tokens_.push_back(parse_added_token(entry));
        }
        string_map<std::int32_t> raw, normalized;
        // Where two have the same form after normalization, special ones come first.
        for (const bool special : {true, false}) {
            for (std::size_t i = 0; i < tokens_.size(); ++i) {
                const added_token& token = tokens_[i];
                if (token.special != special) continue;
                const auto index = static_cast<std::int32_t>(i);
                if (token.normalized) {
                    normalized.emplace(normalize(token.content), index);
                } else {
                    raw.emplace(token.content, index);
                }
            }
        }
        in_raw_text_ = finder_of(raw);
        in_normalized_text_ = finder_of(normalized);
    }

    const std::vector<added_token>& tokens() const { return tokens_; }

    /// Cuts text as it is: on_text(std::string_view, begin) for what lies between tokens, on_token(id) for tokens.
    template <class OnText, class OnToken>
    void split_raw(std::string_view text, const OnText& on_text, const OnToken& on_token) const {
        split(in_raw_text_, text, on_text, on_token);
    }

    /// The same for normalized text.
    template <class OnText, class OnToken>
    void split_normalized(std::string_view text, const OnText& on_text, const OnToken& on_token) const {
        split(in_normalized_text_, text, on_text, on_token);
    }

 private:
    static longest_finder finder_of(const string_map<std::int32_t>& texts);

    /// Where the token begins with the white space that it takes to its left, and where it ends likewise. What lies
    /// before `done` is taken.
    static std::size_t begin_of(const added_token& token, const longest_finder::found& match, std::string_view text,
                                std::size_t done);
    static std::size_t end_of(const added_token& token, const longest_finder::found& match, std::string_view text,
                              std::size_t done);

    template <class OnText, class OnToken>
    void split(const longest_finder& literals, std::string_view text, const OnText& on_text,
               const OnToken& on_token) const {
        std::size_t done = 0;
        for (const auto& match : literals.find_all(text)) {
            const added_token& token = tokens_[static_cast<std::size_t>(match.value)];
            if (token.single_word && (ends_with_word_character(text.substr(0, match.begin)) ||
                                      starts_with_word_character(text.substr(match.end))))
                continue;
            const std::size_t begin = begin_of(token, match, text, done), end = end_of(token, match, text, done);
            if (done < begin) on_text(text.substr(done, begin - done), done);
            if (begin < end) on_token(token.id);  // else the token before took all of it as white space
            done = end;
        }
        if (done < text.size()) on_text(text.substr(done), done);
    }

    std::vector<added_token> tokens_;
    longest_finder in_raw_text_;
    longest_finder in_normalized_text_;
};

}  // namespace gptq::model::detail

#ifndef GPTQ_COMPILED
#include <gptq/model/impl/tokenizer_added_tokens.hpp>
#endif
