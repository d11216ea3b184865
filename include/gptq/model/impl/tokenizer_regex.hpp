// The bodies of <gptq/model/tokenizer_regex.hpp>.
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

#include <gptq/compiled.hpp>
#include <gptq/error.hpp>
#include <gptq/io/pcre2.hpp>
#include <gptq/model/tokenizer_json.hpp>
#include <gptq/model/tokenizer_regex.hpp>
#include <gptq/model/tokenizer_unicode.hpp>

namespace gptq::model {
namespace detail {

GPTQ_INLINE std::string oniguruma_to_pcre2::translate() {
    while (pos_ < in_.size()) step();
    return std::move(out_);
}

GPTQ_INLINE void oniguruma_to_pcre2::copy(std::size_t count) {
    out_.append(in_, pos_, count);
    pos_ += count;
}

GPTQ_INLINE void oniguruma_to_pcre2::refuse(const std::string& what) const {
    node_.refuse("the regular expression \"" + in_ + "\" uses " + what + " at character " + std::to_string(pos_) +
                 ", which is not supported");
}

GPTQ_INLINE void oniguruma_to_pcre2::step() {
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

GPTQ_INLINE void oniguruma_to_pcre2::interval() {
    const auto close = in_.find('}', pos_);
    if (close == std::string::npos || in_.find_first_not_of("0123456789,", pos_ + 1) != close) return copy(1);
    const bool repeated = close + 1 < in_.size() && in_[close + 1] == '+';
    if (repeated) out_.insert(atom_, "(?:");
    copy(1);
    if (at(",")) out_ += '0';
    copy(close + 1 - pos_);
    if (repeated) out_ += ')';
}

GPTQ_INLINE void oniguruma_to_pcre2::open_group() {
    groups_.push_back(out_.size());
    if (!at("(?")) return copy(1);
    const auto flags_end = in_.find_first_not_of("imx-", pos_ + 2);
    if (flags_end == std::string::npos || (in_[flags_end] != ':' && in_[flags_end] != ')')) return copy(2);
    // A flag set in the middle reaches over the alternatives that follow it, but differently in the two syntaxes.
    if (in_[flags_end] == ')' && pos_ != 0) refuse("a flag for the rest of the pattern");
    for (; pos_ < flags_end; ++pos_) out_ += in_[pos_] == 'm' ? 's' : in_[pos_];  // Ruby's m lets . match \n
}

GPTQ_INLINE void oniguruma_to_pcre2::escape() {
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

GPTQ_INLINE void oniguruma_to_pcre2::class_escape(const char* open, const char* members) {
    out_ += in_class_ || *open == '\0' ? members : std::string(open) + members + "]";
    pos_ += 2;
}

GPTQ_INLINE void oniguruma_to_pcre2::character_class() {
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

GPTQ_INLINE regex::regex(const std::string& pattern, const json_node& node) : pattern_(pattern) {
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
        node.fail("the regular expression \"" + pattern + "\" is wrong at character " + std::to_string(offset) + ": " +
                  message(code));
    }
    pcre2_jit_compile(code_.get(), PCRE2_JIT_COMPLETE);  // where there is no JIT, matching works without it
}

GPTQ_INLINE bool regex::match(std::string_view subject, std::size_t from, pcre2_match_data* data) const {
    const auto* text = reinterpret_cast<PCRE2_SPTR>(subject.data());
    int count = pcre2_match(code_.get(), text, subject.size(), from, PCRE2_NO_UTF_CHECK, data, nullptr);
    if (count == PCRE2_ERROR_JIT_STACKLIMIT) {
        // The JIT's default stack is small. The interpreter keeps its own on the heap, within PCRE2's limits.
        count = pcre2_match(code_.get(), text, subject.size(), from, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT, data, nullptr);
    }
    if (count == PCRE2_ERROR_NOMATCH) return false;
    if (count < 0) {
        throw unsupported_error("the tokenizer's regular expression \"" + pattern_ +
                                "\" fails on this text: " + message(count));
    }
    return true;
}

GPTQ_INLINE std::string regex::message(int code) {
    PCRE2_UCHAR buffer[256];
    pcre2_get_error_message(code, buffer, sizeof buffer);
    return reinterpret_cast<const char*>(buffer);
}

GPTQ_INLINE pattern::pattern(const json_node& node) {
    if (const json_node expression = node["Regex"]; !expression.is_null()) {
        matcher_.emplace<regex>(oniguruma_to_pcre2(expression).translate(), expression);
    } else {
        matcher_.emplace<std::string>(node["String"].text());
    }
}

GPTQ_INLINE std::string pattern::replace(std::string_view subject, std::string_view content) const {
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

}  // namespace detail
}  // namespace gptq::model
