// The regular expressions of tokenizer.json are written for Oniguruma, and PCRE2 matches them: the translation.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include <gptq/model/tokenizer_json.hpp>

namespace gptq::model::detail {

/// Rewrites an Oniguruma (Ruby syntax) pattern as a PCRE2 one with the same matches. The two agree on most of what
/// tokenizers use; what differs is translated (`\s`, `\w`, `\b`, `\h`, `\u`, `(?m)`, flags in the middle, `X{a,b}+`,
/// `X{a}?`, POSIX brackets, classes within classes and their intersections), or refused by name, because a pattern that
/// silently means something else gives wrong tokens. Known to differ still: `(?i:ss)` does not match "ß".
class oniguruma_to_pcre2 {
 public:
    explicit oniguruma_to_pcre2(const json_node& pattern) : node_(pattern), in_(pattern.text()) {}

    std::string translate();

 private:
    /// A group that is open.
    struct group {
        std::size_t begin;      // in out_
        std::size_t flags = 0;  // groups within it that stand for a flag for its rest, and end with it
    };

    /// Characters as a union: those that PCRE2 can list in brackets, and patterns for one character each.
    struct character_set {
        std::string members;
        std::vector<std::string> others;

        std::string pattern() const;
    };

    bool at(std::string_view text) const { return std::string_view(in_).substr(pos_).starts_with(text); }

    void copy(std::size_t count);

    [[noreturn]] void refuse(const std::string& what) const;

    void step();

    /// `X{2,3}+` repeats X{2,3} in Oniguruma and is possessive in PCRE2; `X{2}?` makes X{2} optional in one and is lazy
    /// in the other; `X{2}{3}` is an error and `{,3}` literal in PCRE2.
    void interval();

    void open_group();

    void close_group();

    /// Flags that hold until their group ends: a group of its own, because they reach over the alternatives that follow
    /// in Oniguruma, and not in PCRE2.
    void flags(std::size_t end);

    void escape();

    /// Escapes with the same meaning, inside and outside of classes.
    std::string plain_escape();

    /// `\p{...}`, `\P{...}` and their `^`.
    std::string property();

    /// A character class; pos_ is at its bracket, and then behind it.
    std::string character_class(int depth);

    void class_member(character_set& set, int depth);

    void class_escape(character_set& set);

    /// `[:alpha:]` and `[:^alpha:]`; false if there is none.
    bool posix_bracket(character_set& set);

    /// What follows a set of characters is no end of a range, so that a hyphen is one.
    void literal_hyphen(character_set& set);

    json_node node_;
    std::string in_;
    std::string out_;
    std::size_t pos_ = 0;
    std::size_t atom_ = 0;  // where in out_ the thing begins that a quantifier would repeat
    std::vector<group> groups_{{0}};
};

}  // namespace gptq::model::detail

#ifndef GPTQ_COMPILED
#include <gptq/model/impl/tokenizer_oniguruma.hpp>
#endif
