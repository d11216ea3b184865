// Added tokens: the strings that tokenizer.json wants found in a text before anything else happens to it.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <gptq/model/tokenizer_json.hpp>
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

/// Finds any of a set of strings, the longest where several begin at one place.
class literal_set {
 public:
    /// The value of a text that is inserted twice is the first one's. Empty texts are left out.
    void insert(const std::string& text, std::size_t value);

    struct found {
        std::size_t begin;
        std::size_t end;
        std::size_t value;
    };

    /// The leftmost match at or after `from`.
    std::optional<found> find(std::string_view text, std::size_t from) const;

 private:
    string_map<std::size_t> values_;
    std::array<std::vector<std::size_t>, 256> lengths_;  // by first byte, longest first
};

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
        // Where two have the same form after normalization, special ones come first.
        for (const bool special : {true, false}) {
            for (std::size_t i = 0; i < tokens_.size(); ++i) {
                const added_token& token = tokens_[i];
                if (token.special != special) continue;
                if (token.normalized) {
                    in_normalized_text_.insert(normalize(token.content), i);
                } else {
                    in_raw_text_.insert(token.content, i);
                }
            }
        }
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
    template <class OnText, class OnToken>
    void split(const literal_set& literals, std::string_view text, const OnText& on_text,
               const OnToken& on_token) const {
        std::size_t done = 0;
        std::size_t from = 0;
        while (const auto match = literals.find(text, from)) {
            const added_token& token = tokens_[match->value];
            const std::string_view before = text.substr(0, match->begin), after = text.substr(match->end);
            from = match->end;
            if (token.single_word && (ends_with_word_character(before) || starts_with_word_character(after))) continue;
            const std::size_t begin = token.lstrip ? std::max(trailing_space(before), done) : match->begin;
            const std::size_t end = match->end + (token.rstrip ? leading_space(after) : 0);
            if (done < begin) on_text(text.substr(done, begin - done), done);
            if (begin < end) on_token(token.id);  // else the token before took all of it as white space
            done = end;
        }
        if (done < text.size()) on_text(text.substr(done), done);
    }

    std::vector<added_token> tokens_;
    literal_set in_raw_text_;
    literal_set in_normalized_text_;
};

}  // namespace gptq::model::detail

#ifndef GPTQ_COMPILED
#include <gptq/model/impl/tokenizer_added_tokens.hpp>
#endif
