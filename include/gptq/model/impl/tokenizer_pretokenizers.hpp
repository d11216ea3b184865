// The bodies of <gptq/model/tokenizer_pretokenizers.hpp>.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <gptq/compiled.hpp>
#include <gptq/model/tokenizer_json.hpp>
#include <gptq/model/tokenizer_normalizers.hpp>
#include <gptq/model/tokenizer_pretokenizers.hpp>
#include <gptq/model/tokenizer_regex.hpp>
#include <gptq/model/tokenizer_unicode.hpp>
#include <gptq/quote.hpp>

namespace gptq::model {
namespace detail {

GPTQ_INLINE std::string_view pre_tokenized::view(byte_range range) const {
    return std::string_view(text).substr(range.begin, range.end - range.begin);
}

/// A part of a word: a match of the splitter's pattern, or what lies between two matches.
struct word_part {
    byte_range range;
    bool match;
};

/// What becomes of the matches that a word is cut at.
enum class split_behavior { isolated, removed, merged_with_previous, merged_with_next, contiguous };

inline split_behavior parse_split_behavior(const json_node& node, split_behavior otherwise) {
    if (node.is_null()) return otherwise;
    const std::string name = node.text();
    if (name == "Isolated") return split_behavior::isolated;
    if (name == "Removed") return split_behavior::removed;
    if (name == "MergedWithPrevious") return split_behavior::merged_with_previous;
    if (name == "MergedWithNext") return split_behavior::merged_with_next;
    if (name == "Contiguous") return split_behavior::contiguous;
    node.fail("expected Isolated, Removed, MergedWithPrevious, MergedWithNext or Contiguous");
}

/// Joins parts as `behavior` says; what is left are the words. A match merges with at most one other part, so that of
/// two neighbouring matches only one moves.
inline void merge_parts(std::vector<word_part>& parts, split_behavior behavior) {
    if (behavior == split_behavior::isolated) return;
    if (behavior == split_behavior::removed) {
        std::erase_if(parts, [](const word_part& part) { return part.match; });
        return;
    }
    const bool backwards = behavior == split_behavior::merged_with_next;
    if (backwards) std::reverse(parts.begin(), parts.end());
    std::vector<word_part> merged;
    bool previous_match = false;
    for (const word_part& part : parts) {
        const bool joins =
            behavior == split_behavior::contiguous ? part.match == previous_match : part.match && !previous_match;
        if (!joins || merged.empty()) {
            merged.push_back(part);
        } else if (backwards) {
            merged.back().range.begin = part.range.begin;
        } else {
            merged.back().range.end = part.range.end;
        }
        previous_match = part.match;
    }
    if (backwards) std::reverse(merged.begin(), merged.end());
    parts = std::move(merged);
}

/// Cuts every word. find(view, visit) calls visit(byte_range) for each match in the word; `invert` swaps the roles of
/// the matches and of what lies between them.
template <class Find>
void split_words(pre_tokenized& text, split_behavior behavior, bool invert, const Find& find) {
    std::vector<word_range> words;
    std::vector<word_part> parts;
    for (const word_range& word : text.words) {
        const std::string_view view = text.view(word.range);
        parts.clear();
        std::size_t done = 0;
        find(view, [&](byte_range match) {
            if (match.begin != done) parts.push_back({{done, match.begin}, invert});
            parts.push_back({match, !invert});
            done = match.end;
        });
        if (done != view.size()) parts.push_back({{done, view.size()}, invert});
        merge_parts(parts, behavior);
        for (const auto& [range, match] : parts) {
            if (range.empty()) continue;
            words.push_back({{word.range.begin + range.begin, word.range.begin + range.end},
                             word.at_text_start && range.begin == 0});
        }
    }
    text.words = std::move(words);
}

/// Cuts every word at the matches of a pattern.
inline pre_tokenizer_step split_at(pattern matcher, split_behavior behavior, bool invert = false) {
    return [matcher = std::move(matcher), behavior, invert](pre_tokenized& text) {
        split_words(text, behavior, invert,
                    [&](std::string_view word, const auto& visit) { matcher.for_each_match(word, visit); });
    };
}

/// Cuts every word at each character that has a property.
inline pre_tokenizer_step split_at_characters(bool (*property)(char32_t), split_behavior behavior) {
    return [property, behavior](pre_tokenized& text) {
        split_words(text, behavior, false, [&](std::string_view word, const auto& visit) {
            for_each_character(word, [&](char32_t c, std::size_t at, std::size_t length) {
                if (property(c)) visit(byte_range{at, at + length});
            });
        });
    };
}

/// Rewrites every word: append(out, word) appends what becomes of it.
template <class Append>
void rewrite_words(pre_tokenized& text, const Append& append) {
    std::string out;
    out.reserve(text.text.size() + text.text.size() / 2);
    for (word_range& word : text.words) {
        const std::size_t begin = out.size();
        append(out, text.view(word.range), word.at_text_start);
        word.range = {begin, out.size()};
    }
    text.text = std::move(out);
}

/// ByteLevel: GPT-2's words, then every byte as a character of its own.
inline pre_tokenizer_step make_byte_level(const json_node& node) {
    // GPT-2's expression in PCRE2's syntax; its \s is written out as White_Space by the translation.
    static const nlohmann::json expression =
        R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";
    std::optional<pre_tokenizer_step> split;
    if (node["use_regex"].flag(true)) {
        const json_node source(expression, "ByteLevel");
        split = split_at(pattern(regex(oniguruma_to_pcre2(source).translate(), source)), split_behavior::isolated);
    }
    return [split, prefix = node["add_prefix_space"].flag(true)](pre_tokenized& text) {
        if (prefix) {
            rewrite_words(text, [](std::string& out, std::string_view word, bool) {
                if (!word.starts_with(' ')) out += ' ';
                out += word;
            });
        }
        if (split) (*split)(text);
        rewrite_words(text, [](std::string& out, std::string_view word, bool) { append_byte_characters(out, word); });
    };
}

GPTQ_INLINE prepend_scheme parse_prepend_scheme(const json_node& metaspace) {
    const json_node scheme = metaspace["prepend_scheme"];
    if (scheme.is_null()) {  // older files have only a flag
        return metaspace["add_prefix_space"].flag(true) ? prepend_scheme::always : prepend_scheme::never;
    }
    const std::string name = scheme.text();
    if (name == "always") return prepend_scheme::always;
    if (name == "first") return prepend_scheme::first;
    if (name == "never") return prepend_scheme::never;
    scheme.fail("expected always, first or never");
}

/// Metaspace: spaces become a visible mark, which begins every word.
inline pre_tokenizer_step make_metaspace(const json_node& node) {
    const std::string mark = node["replacement"].text();
    if (mark.empty() || decode_character(mark, 0).length != mark.size())
        node["replacement"].fail("expected one character");
    const prepend_scheme scheme = parse_prepend_scheme(node);
    std::optional<pre_tokenizer_step> split;
    if (node["split"].flag(true)) split = split_at(pattern(mark), split_behavior::merged_with_next);
    return [mark, scheme, split](pre_tokenized& text) {
        const pattern space(std::string(" "));
        rewrite_words(text, [&](std::string& out, std::string_view word, bool at_text_start) {
            const std::string marked = space.replace(word, mark);
            const bool prepend = scheme == prepend_scheme::always || (scheme == prepend_scheme::first && at_text_start);
            if (prepend && !marked.starts_with(mark)) out += mark;
            out += marked;
        });
        if (split) (*split)(text);
    };
}

/// Cuts every word after so many characters.
inline pre_tokenizer_step make_fixed_length(const json_node& node) {
    const std::int32_t length = node["length"].is_null() ? 5 : node["length"].number(1 << 30);
    if (length == 0) node["length"].fail("expected a positive number");
    return [length](pre_tokenized& text) {
        split_words(text, split_behavior::isolated, false, [&](std::string_view word, const auto& visit) {
            std::int32_t count = 0;
            std::size_t begin = 0;
            for_each_character(word, [&](char32_t, std::size_t at, std::size_t size) {
                if (++count < length) return;
                visit(byte_range{begin, at + size});
                begin = at + size;
                count = 0;
            });
        });
    };
}

inline pre_tokenizer_step make_pre_tokenizer_step(const json_node& node) {
    const std::string type = node["type"].text();
    const json_node behavior = node["behavior"];
    if (type == "ByteLevel") return make_byte_level(node);
    if (type == "Metaspace") return make_metaspace(node);
    if (type == "Split") {
        if (behavior.is_null()) behavior.fail("expected a behavior");
        return split_at(pattern(node["pattern"]), parse_split_behavior(behavior, split_behavior::isolated),
                        node["invert"].flag(false));
    }
    if (type == "Digits") {
        return split_at_characters(
            is_number, node["individual_digits"].flag(false) ? split_behavior::isolated : split_behavior::contiguous);
    }
    if (type == "Punctuation") {
        return split_at_characters(is_punctuation, parse_split_behavior(behavior, split_behavior::isolated));
    }
    if (type == "CharDelimiterSplit") {
        return split_at(pattern(node["delimiter"].text()), split_behavior::removed);
    }
    if (type == "BertPreTokenizer") {
        return [spaces = split_at_characters(is_space, split_behavior::removed),
                marks = split_at_characters(is_punctuation, split_behavior::isolated)](pre_tokenized& text) {
            spaces(text);
            marks(text);
        };
    }
    if (type == "FixedLength") return make_fixed_length(node);
    if (type == "WhitespaceSplit") return split_at_characters(is_space, split_behavior::removed);
    if (type == "Whitespace") {
        // Words are runs of word characters, and runs of what is neither a word character nor a space.
        return [](pre_tokenized& text) {
            const auto kind = [](char32_t c) { return is_space(c) ? 0 : is_word_character(c) ? 1 : 2; };
            split_words(text, split_behavior::removed, true, [&](std::string_view word, const auto& visit) {
                byte_range run{0, 0};
                int run_kind = 0;
                for_each_character(word, [&](char32_t c, std::size_t at, std::size_t length) {
                    if (kind(c) != run_kind) {
                        if (run_kind != 0) visit(run);
                        run = {at, at};
                        run_kind = kind(c);
                    }
                    run.end = at + length;
                });
                if (run_kind != 0) visit(run);
            });
        };
    }
    node.refuse("pre-tokenizer " + in_quotes(type) + " is not supported");
}

GPTQ_INLINE pre_tokenizer::pre_tokenizer(const json_node& node) {
    flatten_sequence(node, "pretokenizers", steps_, make_pre_tokenizer_step);
}

GPTQ_INLINE pre_tokenized pre_tokenizer::operator()(std::string text, bool at_text_start) const {
    pre_tokenized out;
    out.words.push_back({{0, text.size()}, at_text_start});
    out.text = std::move(text);
    for (const auto& step : steps_) step(out);
    return out;
}

}  // namespace detail
}  // namespace gptq::model
