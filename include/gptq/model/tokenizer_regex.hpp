// Regular expressions and literal patterns of tokenizer.json. The files are written for Oniguruma; PCRE2 matches.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include <gptq/error.hpp>
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

    std::string translate() {
        while (pos_ < in_.size()) step();
        return std::move(out_);
    }

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

    void copy(std::size_t count) {
        out_.append(in_, pos_, count);
        pos_ += count;
    }

    [[noreturn]] void refuse(const std::string& what) const {
        node_.refuse("the regular expression \"" + in_ + "\" uses " + what + " at character " + std::to_string(pos_) +
                     ", which is not supported");
    }

    void step() {
        const char c = in_[pos_];
        if (c == '{') return interval();
        if (c != '?' && c != '*' && c != '+' && c != '|' && c != '(' && c != ')') atom_ = out_.size();
        switch (c) {
            case '\\': return escape();
            case '[': return character_class();
            case '(': return open_group();
            case ')':
                if (!groups_.empty()) {
                    atom_ = groups_.back();
                    groups_.pop_back();
                }
                return copy(1);
            default: return copy(1);
        }
    }

    /// `X{2,3}+` is possessive in PCRE2, but repeats X{2,3} in Oniguruma; `{,3}` is literal in PCRE2.
    void interval() {
        const auto close = in_.find('}', pos_);
        if (close == std::string::npos || in_.find_first_not_of("0123456789,", pos_ + 1) != close) return copy(1);
        const bool repeated = close + 1 < in_.size() && in_[close + 1] == '+';
        if (repeated) out_.insert(atom_, "(?:");
        copy(1);
        if (at(",")) out_ += '0';
        copy(close + 1 - pos_);
        if (repeated) out_ += ')';
    }

    void open_group() {
        groups_.push_back(out_.size());
        if (!at("(?")) return copy(1);
        const auto flags_end = in_.find_first_not_of("imx-", pos_ + 2);
        if (flags_end == std::string::npos || (in_[flags_end] != ':' && in_[flags_end] != ')')) return copy(2);
        // A flag set in the middle reaches over the alternatives that follow it, but differently in the two syntaxes.
        if (in_[flags_end] == ')' && pos_ != 0) refuse("a flag for the rest of the pattern");
        for (; pos_ < flags_end; ++pos_) out_ += in_[pos_] == 'm' ? 's' : in_[pos_];  // Ruby's m lets . match \n
    }

    void escape() {
        if (pos_ + 1 >= in_.size()) refuse("a backslash without a character");
        const char c = in_[pos_ + 1];
        switch (c) {
            case 's': return class_escape("[", spaces);
            case 'S': return in_class_ ? class_escape("", not_spaces) : class_escape("[^", spaces);
            case 'w': return class_escape("[", in_class_ ? word_in_class : word);
            case 'h': return class_escape("[", hex);
            case 'W':
            case 'H':
                if (in_class_) refuse(std::string("\\") + c + " in a character class");
                return class_escape("[^", c == 'W' ? word : hex);
            case 'v': return class_escape("", R"(\x{b})");
            case 'u':
                if (in_.find_first_not_of("0123456789abcdefABCDEF", pos_ + 2) < pos_ + 6 || pos_ + 6 > in_.size()) {
                    refuse("\\u without four hexadecimal digits");
                }
                out_ += "\\x{" + in_.substr(pos_ + 2, 4) + "}";
                pos_ += 6;
                return;
            case 'p':
            case 'P': {
                const auto close = in_.find('}', pos_);
                if (!std::string_view(in_).substr(pos_ + 2).starts_with('{') || close == std::string::npos) {
                    refuse("a property without braces");
                }
                return copy(close + 1 - pos_);
            }
            default: break;
        }
        const bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
        if (letter && std::string_view("dDntrfaexAzZR").find(c) == std::string_view::npos) {
            refuse(std::string("\\") + c);
        }
        copy(2);
    }

    /// Replaces a two-character escape by members of a class, in brackets of its own unless it stands in a class.
    void class_escape(const char* open, const char* members) {
        out_ += in_class_ || *open == '\0' ? members : std::string(open) + members + "]";
        pos_ += 2;
    }

    void character_class() {
        in_class_ = true;
        copy(1);
        if (at("^")) copy(1);
        if (at("]")) refuse("an unescaped ] at the start of a character class");
        while (pos_ < in_.size() && in_[pos_] != ']') {
            if (in_[pos_] == '[') refuse("a class within a character class");
            if (at("&&")) refuse("an intersection of character classes");
            if (in_[pos_] == '\\') {
                escape();
            } else {
                copy(1);
            }
        }
        if (pos_ < in_.size()) copy(1);
        in_class_ = false;
    }

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
    regex(const std::string& pattern, const json_node& node) : pattern_(pattern) {
        const std::unique_ptr<pcre2_compile_context, decltype(&pcre2_compile_context_free)> context(
            pcre2_compile_context_create(nullptr), &pcre2_compile_context_free);
        if (!context) throw std::bad_alloc();
        pcre2_set_newline(context.get(), PCRE2_NEWLINE_LF);
        int code = 0;
        PCRE2_SIZE offset = 0;
        // Ruby's ^ and $ match at every line, hence MULTILINE.
        constexpr std::uint32_t options = PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C;
        code_.reset(pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern.data()), pattern.size(), options, &code, &offset,
                                  context.get()),
                    pcre2_code_free);
        if (!code_) {
            node.fail("the regular expression \"" + pattern + "\" is wrong at character " + std::to_string(offset) +
                      ": " + message(code));
        }
        pcre2_jit_compile(code_.get(), PCRE2_JIT_COMPLETE);  // where there is no JIT, matching works without it
    }

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
    bool match(std::string_view subject, std::size_t from, pcre2_match_data* data) const {
        const auto* text = reinterpret_cast<PCRE2_SPTR>(subject.data());
        int count = pcre2_match(code_.get(), text, subject.size(), from, PCRE2_NO_UTF_CHECK, data, nullptr);
        if (count == PCRE2_ERROR_JIT_STACKLIMIT) {
            // The JIT's default stack is small. The interpreter keeps its own on the heap, within PCRE2's limits.
            count =
                pcre2_match(code_.get(), text, subject.size(), from, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT, data, nullptr);
        }
        if (count == PCRE2_ERROR_NOMATCH) return false;
        if (count < 0) {
            throw unsupported_error("the tokenizer's regular expression \"" + pattern_ +
                                    "\" fails on this text: " + message(count));
        }
        return true;
    }

    static std::string message(int code) {
        PCRE2_UCHAR buffer[256];
        pcre2_get_error_message(code, buffer, sizeof buffer);
        return reinterpret_cast<const char*>(buffer);
    }

    std::string pattern_;
    std::shared_ptr<pcre2_code> code_;
};

/// A pattern of a normalizer, pre-tokenizer or decoder: {"Regex": "..."} or {"String": "..."}.
class pattern {
 public:
    explicit pattern(const json_node& node) {
        if (const json_node expression = node["Regex"]; !expression.is_null()) {
            matcher_.emplace<regex>(oniguruma_to_pcre2(expression).translate(), expression);
        } else {
            matcher_.emplace<std::string>(node["String"].text());
        }
    }

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
    std::string replace(std::string_view subject, std::string_view content) const {
        std::string out;
        out.reserve(subject.size());
        std::size_t done = 0;
        for_each_match(subject, [&](byte_range match) {
            out += subject.substr(done, match.begin - done);
            out += content;
            done = match.end;
        });
        out += subject.substr(done);
        return out;
    }

 private:
    std::variant<std::string, regex> matcher_;
};

}  // namespace gptq::model::detail
