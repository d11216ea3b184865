// The bodies of <gptq/model/tokenizer_oniguruma.hpp>.
#pragma once

#include <algorithm>
#include <cstddef>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <gptq/compiled.hpp>
#include <gptq/model/tokenizer_json.hpp>
#include <gptq/model/tokenizer_oniguruma.hpp>
#include <gptq/model/tokenizer_properties.hpp>
#include <gptq/quote.hpp>

namespace gptq::model {
namespace detail {

GPTQ_INLINE std::string oniguruma_to_pcre2::character_set::pattern() const {
    std::string out;
    if (!members.empty()) out = "[" + members + "]";
    for (const std::string& other : others) out += (out.empty() ? "" : "|") + other;
    if (out.empty()) return "(?!)";  // the union of nothing
    return others.size() + (members.empty() ? 0 : 1) == 1 ? out : "(?:" + out + ")";
}

GPTQ_INLINE std::string oniguruma_to_pcre2::translate() {
    while (pos_ < in_.size()) step();
    if (groups_.size() == 1) out_.append(groups_.front().flags, ')');
    return std::move(out_);
}

GPTQ_INLINE void oniguruma_to_pcre2::copy(std::size_t count) {
    out_.append(in_, pos_, count);
    pos_ += count;
}

GPTQ_INLINE void oniguruma_to_pcre2::refuse(const std::string& what) const {
    node_.refuse("the regular expression " + in_quotes(in_) + " uses " + what + " at character " +
                 std::to_string(pos_) + ", which is not supported");
}

GPTQ_INLINE void oniguruma_to_pcre2::step() {
    const char c = in_[pos_];
    if (c == '{') return interval();
    if (c != '?' && c != '*' && c != '+' && c != '|' && c != '(' && c != ')') atom_ = out_.size();
    switch (c) {
        case '\\': return escape();
        case '[': out_ += character_class(0); return;
        case '(': return open_group();
        case ')': return close_group();
        default: return copy(1);
    }
}

GPTQ_INLINE void oniguruma_to_pcre2::interval() {
    const auto close = in_.find('}', pos_);
    const bool numbers = close != std::string::npos && in_.find_first_of("0123456789", pos_) < close &&
                         in_.find_first_not_of("0123456789,", pos_ + 1) == close;
    if (!numbers) {  // a brace is a character
        atom_ = out_.size();
        return copy(1);
    }
    const char next = close + 1 < in_.size() ? in_[close + 1] : '\0';
    const bool fixed = in_.find(',', pos_) > close;
    const bool repeated = next == '+' || next == '{' || (next == '?' && fixed);
    if (repeated) out_.insert(atom_, "(?:");
    copy(1);
    if (at(",")) out_ += '0';
    copy(close + 1 - pos_);
    if (repeated) out_ += ')';
}

GPTQ_INLINE void oniguruma_to_pcre2::open_group() {
    if (at("(?#")) {
        pos_ = std::min(in_.find(')', pos_), in_.size() - 1) + 1;
        return;
    }
    const auto flags_end = at("(?") ? in_.find_first_not_of("imx-", pos_ + 2) : std::string::npos;
    if (flags_end != std::string::npos && in_[flags_end] == ')' && flags_end > pos_ + 2) return flags(flags_end);
    groups_.push_back({out_.size()});
    if (!at("(?")) return copy(1);
    if (flags_end == std::string::npos || in_[flags_end] != ':') return copy(2);
    for (; pos_ < flags_end; ++pos_) out_ += in_[pos_] == 'm' ? 's' : in_[pos_];  // Ruby's m lets . match \n
}

GPTQ_INLINE void oniguruma_to_pcre2::flags(std::size_t end) {
    for (; pos_ < end; ++pos_) out_ += in_[pos_] == 'm' ? 's' : in_[pos_];
    out_ += ':';
    ++pos_;
    ++groups_.back().flags;
}

GPTQ_INLINE void oniguruma_to_pcre2::close_group() {
    if (groups_.size() > 1) {
        atom_ = groups_.back().begin;
        out_.append(groups_.back().flags, ')');
        groups_.pop_back();
    }
    copy(1);
}

GPTQ_INLINE void oniguruma_to_pcre2::escape() {
    const char c = pos_ + 1 < in_.size() ? in_[pos_ + 1] : '\0';
    const auto replace = [&](const std::string& pattern) {
        out_ += pattern;
        pos_ += 2;
    };
    const auto any_of = [](const char* list) { return "[" + std::string(list) + "]"; };
    const auto none_of = [](const char* list) { return "[^" + std::string(list) + "]"; };
    const std::string before = "(?<=" + any_of(class_members::word) + ")",
                      not_before = "(?<!" + any_of(class_members::word) + ")";
    const std::string after = "(?=" + any_of(class_members::word) + ")",
                      not_after = "(?!" + any_of(class_members::word) + ")";
    switch (c) {
        case 's': return replace(any_of(class_members::space));
        case 'S': return replace(none_of(class_members::space));
        case 'w': return replace(any_of(class_members::word));
        case 'W': return replace(none_of(class_members::word));
        case 'h': return replace(any_of(class_members::hex));
        case 'H': return replace(none_of(class_members::hex));
        case 'b': return replace("(?:" + before + not_after + "|" + not_before + after + ")");
        case 'B': return replace("(?:" + before + after + "|" + not_before + not_after + ")");
        case 'O': return replace("\\p{Any}");
        case 'A':
        case 'G':
        case 'N':
        case 'R':
        case 'Z':
        case 'z': return copy(2);
        case 'k':
            if (at("\\k<") || at("\\k'")) return copy(2);
            break;
        case 'p':
        case 'P': {
            const std::string list = property();
            out_ += "[" + list + "]";
            return;
        }
        default: break;
    }
    out_ += plain_escape();
}

GPTQ_INLINE std::string oniguruma_to_pcre2::plain_escape() {
    if (pos_ + 1 >= in_.size()) refuse("a backslash without a character");
    const char c = in_[pos_ + 1];
    const auto digits_end = std::min(in_.find_first_not_of("0123456789abcdefABCDEF", pos_ + 2), in_.size());
    const std::size_t digits = digits_end - (pos_ + 2);
    const auto take = [&](std::size_t count) { return in_.substr(std::exchange(pos_, pos_ + count), count); };
    if (c == 'v') return take(2).replace(1, 1, "x{b}");
    if (c == 'u') {
        if (digits < 4) refuse("\\u without four hexadecimal digits");
        return "\\x{" + take(6).substr(2) + "}";
    }
    // In a pattern of UTF-8 it is a byte, of which only ASCII is a character by itself.
    if (c == 'x' && digits >= 2 && in_[pos_ + 2] >= '8') refuse("\\x for a byte that is not ASCII");
    const bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
    if (letter && std::string_view("dDntrfaex").find(c) == std::string_view::npos) refuse(std::string("\\") + c);
    return take(2);
}

GPTQ_INLINE std::string oniguruma_to_pcre2::property() {
    const auto close = in_.find('}', pos_);
    if (!std::string_view(in_).substr(pos_ + 2).starts_with('{') || close == std::string::npos) {
        refuse("a property without braces");
    }
    bool negated = in_[pos_ + 1] == 'P';
    std::string name;
    for (const char c : std::string_view(in_).substr(pos_ + 3, close - pos_ - 3)) {
        if (c == '^' && name.empty()) negated = !negated;
        if (c != ' ' && c != '_' && c != '-' && c != '^') name += c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c;
    }
    pos_ = close + 1;
    return negated ? "^" + members_of_property(name) : members_of_property(name);
}

GPTQ_INLINE std::string oniguruma_to_pcre2::character_class(int depth) {
    if (depth == max_nesting) refuse("character classes nested deeper than " + std::to_string(max_nesting));
    ++pos_;
    const bool negated = at("^");
    if (negated) ++pos_;
    std::vector<std::string> operands;  // of the intersection
    character_set set;
    if (at("]")) {  // a bracket in front is a member
        set.members = "\\]";
        ++pos_;
    }
    for (; pos_ < in_.size() && in_[pos_] != ']';) {
        if (at("&&")) {
            operands.push_back(std::exchange(set, {}).pattern());
            pos_ += 2;
        } else {
            class_member(set, depth);
        }
    }
    if (pos_ == in_.size()) node_.fail("the regular expression has a character class without an end");
    ++pos_;
    if (operands.empty() && set.others.empty()) return (negated ? "[^" : "[") + set.members + "]";
    std::string out;
    for (const std::string& operand : operands) out += "(?=" + operand + ")";
    out += set.pattern();
    return negated ? "(?:(?!" + out + ")\\p{Any})" : "(?:" + out + ")";
}

GPTQ_INLINE void oniguruma_to_pcre2::class_member(character_set& set, int depth) {
    if (in_[pos_] == '\\') return class_escape(set);
    if (in_[pos_] != '[') {
        // Behind a bracket, PCRE2 takes a colon, a dot or an equals sign for the start of a POSIX bracket.
        if (at(":") || at(".") || at("=")) set.members += '\\';
        set.members += in_[pos_++];
        return;
    }
    if (!posix_bracket(set)) set.others.push_back(character_class(depth + 1));
    literal_hyphen(set);
}

GPTQ_INLINE void oniguruma_to_pcre2::class_escape(character_set& set) {
    const char c = pos_ + 1 < in_.size() ? in_[pos_ + 1] : '\0';
    const auto lower = static_cast<char>(c | 0x20);
    const char* list = lower == 's'   ? class_members::space
                       : lower == 'w' ? class_members::word_in_class
                       : lower == 'h' ? class_members::hex
                                      : nullptr;
    if (list != nullptr) {
        pos_ += 2;
        if (c == lower) {
            set.members += list;
        } else {
            set.others.push_back("[^" + std::string(list) + "]");
        }
        return literal_hyphen(set);
    }
    if (lower == 'p') {
        const std::string of = property();
        if (of.starts_with('^')) {
            set.others.push_back("[" + of + "]");
        } else {
            set.members += of;
        }
        return literal_hyphen(set);
    }
    if (c == 'b') {  // the backspace
        set.members += "\\x{8}";
        pos_ += 2;
        return;
    }
    set.members += plain_escape();
}

GPTQ_INLINE bool oniguruma_to_pcre2::posix_bracket(character_set& set) {
    const auto close = in_.find(":]", pos_);
    if (!at("[:") || close == std::string::npos) return false;
    const bool negated = at("[:^");
    const std::size_t begin = pos_ + (negated ? 3 : 2);
    const auto name = std::string_view(in_).substr(begin, begin < close ? close - begin : 0);
    if (name.empty() || name.find_first_not_of("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ") != name.npos) {
        return false;
    }
    const char* list = find_posix_members(name);
    if (list == nullptr) refuse("[:" + std::string(name) + ":], a set of characters that nobody knows,");
    if (negated) {
        set.others.push_back("[^" + std::string(list) + "]");
    } else {
        set.members += list;
    }
    pos_ = close + 2;
    return true;
}

GPTQ_INLINE void oniguruma_to_pcre2::literal_hyphen(character_set& set) {
    if (!at("-")) return;
    set.members += "\\-";
    ++pos_;
}

}  // namespace detail
}  // namespace gptq::model
