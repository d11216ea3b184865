// Regular expressions and literal patterns of tokenizer.json. The files are written for Oniguruma; PCRE2 matches.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include <gptq/io/pcre2.hpp>
#include <gptq/model/tokenizer_json.hpp>
#include <gptq/model/tokenizer_unicode.hpp>

namespace gptq::model::detail {

/// Half-open range of bytes.
struct byte_range {
    std::size_t begin;
    std::size_t end;
    bool empty() const { return begin == end; }
};

/// Rewrites an Oniguruma (Ruby syntax) pattern as a PCRE2 one with the same matches. The two agree on most of what
/// tokenizers use; what differs is translated (`\s`, `\w`, `\h`, `\u`, `(?m)`, `X{a,b}+`), or refused by name, because
/// a pattern that silently means something else gives wrong tokens. Known to differ still: `(?i:ss)` does not match
/// "ß".
class oniguruma_to_pcre2 {
 public:
    explicit oniguruma_to_pcre2(const json_node& pattern) : node_(pattern), in_(pattern.text()) {}

    std::string translate();

 private:
    // Members of a character class. Oniguruma's \s is White_Space, to which PCRE2's adds U+180E.
    static constexpr const char* spaces =
        R"(\x{9}-\x{d}\x{20}\x{85}\x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000})";
    static constexpr const char* not_spaces =
        R"(\x{0}-\x{8}\x{e}-\x{1f}\x{21}-\x{84}\x{86}-\x{9f}\x{a1}-\x{167f}\x{1681}-\x{1fff}\x{200b}-\x{2027})"
        R"(\x{202a}-\x{202e}\x{2030}-\x{205e}\x{2060}-\x{2fff}\x{3001}-\x{10ffff})";
    static constexpr const char* word_in_class = R"(\p{Alphabetic}\p{M}\p{Nd}\p{Pc})";
    // Outside of a class, Oniguruma's \w has the superscripts and fractions of Latin-1 as well.
    static constexpr const char* word = R"(\p{Alphabetic}\p{M}\p{Nd}\p{Pc}\x{b2}\x{b3}\x{b9}\x{bc}-\x{be})";
    static constexpr const char* hex = "0-9A-Fa-f";

    bool at(std::string_view text) const { return std::string_view(in_).substr(pos_).starts_with(text); }

    void copy(std::size_t count);

    [[noreturn]] void refuse(const std::string& what) const;

    void step();

    /// `X{2,3}+` is possessive in PCRE2, but repeats X{2,3} in Oniguruma; `{,3}` is literal in PCRE2.
    void interval();

    void open_group();

    void escape();

    /// Replaces a two-character escape by members of a class, in brackets of its own unless it stands in a class.
    void class_escape(const char* open, const char* members);

    void character_class();

    json_node node_;
    std::string in_;
    std::string out_;
    std::size_t pos_ = 0;
    std::size_t atom_ = 0;             // where in out_ the thing begins that a quantifier would repeat
    std::vector<std::size_t> groups_;  // where in out_ the open groups begin
    bool in_class_ = false;
};

/// A compiled PCRE2 pattern; cheap to copy, safe to match with from several threads at once.
class regex {
 public:
    /// `pattern` is in PCRE2's syntax; `node` is where it comes from, for messages.
    regex(const std::string& pattern, const json_node& node);

    /// Calls visit(byte_range) for every match from left to right; an empty one at the end of another does not count.
    /// `subject` is valid UTF-8. Throws unsupported_error if the pattern needs more steps or memory than is sensible.
    template <class Visit>
    void for_each_match(std::string_view subject, Visit&& visit) const {
        const std::unique_ptr<pcre2_match_data, decltype(&pcre2_match_data_free)> data(
            pcre2_match_data_create(1, nullptr), &pcre2_match_data_free);
        if (!data) throw std::bad_alloc();
        const PCRE2_SIZE* range = pcre2_get_ovector_pointer(data.get());
        std::size_t previous_end = std::string_view::npos;
        for (std::size_t from = 0; from <= subject.size();) {
            if (!match(subject, from, data.get())) return;
            const byte_range found{range[0], range[1]};
            if (found.empty() && found.begin == previous_end) {
                if (found.end == subject.size()) return;
                from = found.end + decode_character(subject, found.end).length;
                continue;
            }
            visit(found);
            from = previous_end = found.end;
        }
    }

 private:
    bool match(std::string_view subject, std::size_t from, pcre2_match_data* data) const;

    static std::string message(int code);

    std::string pattern_;
    std::shared_ptr<pcre2_code> code_;
};

/// A pattern of a normalizer, pre-tokenizer or decoder: {"Regex": "..."} or {"String": "..."}.
class pattern {
 public:
    explicit pattern(const json_node& node);

    explicit pattern(regex expression) : matcher_(std::move(expression)) {}
    explicit pattern(std::string literal) : matcher_(std::move(literal)) {}

    /// Calls visit(byte_range) for every match from left to right. Nothing matches in an empty subject, nor does an
    /// empty literal anywhere.
    template <class Visit>
    void for_each_match(std::string_view subject, Visit&& visit) const {
        if (subject.empty()) return;
        if (const auto* expression = std::get_if<regex>(&matcher_)) {
            expression->for_each_match(subject, visit);
            return;
        }
        const auto& literal = std::get<std::string>(matcher_);
        if (literal.empty()) return;
        for (auto at = subject.find(literal); at != std::string_view::npos;
             at = subject.find(literal, at + literal.size())) {
            visit(byte_range{at, at + literal.size()});
        }
    }

    /// The subject with every match replaced by `content`, taken as it is.
    std::string replace(std::string_view subject, std::string_view content) const;

 private:
    std::variant<std::string, regex> matcher_;
};

}  // namespace gptq::model::detail

#ifndef GPTQ_COMPILED
#include <gptq/model/impl/tokenizer_regex.hpp>
#endif
