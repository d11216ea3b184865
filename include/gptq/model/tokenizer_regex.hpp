// Regular expressions and literal patterns of tokenizer.json.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include <gptq/io/pcre2.hpp>
#include <gptq/model/tokenizer_json.hpp>
#include <gptq/model/tokenizer_oniguruma.hpp>
#include <gptq/model/tokenizer_unicode.hpp>

namespace gptq::model::detail {

/// Half-open range of bytes.
struct byte_range {
    std::size_t begin;
    std::size_t end;
    bool empty() const { return begin == end; }
};

/// Seconds of the processor that one walk over the matches in a subject may take, and those for each of its bytes: a
/// hundred times what tokenizers in use need, so that a pattern made to take for ever is refused.
inline constexpr double seconds_per_walk = 0.002, seconds_per_byte = 5e-6;

/// Longer patterns are refused.
inline constexpr std::size_t max_pattern_bytes = std::size_t{64} << 10;

/// A text that a file makes of another may be so many times as long, and so many bytes longer.
inline constexpr std::size_t max_growth = 32, max_growth_bytes = 4096;

/// Throws unsupported_error for a text of `size` bytes that came of one of `original` and is longer than that.
void check_growth(std::size_t size, std::size_t original);

/// A compiled PCRE2 pattern; cheap to copy, safe to match with from several threads at once.
class regex {
 public:
    /// `pattern` is in PCRE2's syntax; `node` is where it comes from, for messages.
    regex(const std::string& pattern, const json_node& node);

    /// Calls visit(byte_range) for every match from left to right; an empty one at the end of another does not count.
    /// `subject` is valid UTF-8. Throws unsupported_error if the pattern needs more steps or memory than is sensible.
    template <class Visit>
    void for_each_match(std::string_view subject, Visit&& visit) const {
        search state(subject);
        const PCRE2_SIZE* range = pcre2_get_ovector_pointer(state.data.get());
        std::size_t previous_end = std::string_view::npos;
        for (std::size_t from = 0; from <= subject.size();) {
            if (!match(state, from)) return;
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
    /// A walk over the matches in one subject.
    struct search {
        explicit search(std::string_view text);

        std::string_view subject;
        std::unique_ptr<pcre2_match_data, decltype(&pcre2_match_data_free)> data;
        std::unique_ptr<pcre2_match_context, decltype(&pcre2_match_context_free)> context;
        std::chrono::steady_clock::time_point begin;
        std::optional<double> busy_since;  // by the thread's clock, which takes longer to ask
    };

    static bool took_too_long(search& state);

    bool match(search& state, std::size_t from) const;

    /// PCRE2's answer within so many of its steps, each of which may look at all of the subject.
    int try_match(search& state, std::size_t from, std::uint32_t steps) const;

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

    /// The subject with every match replaced by `content`, taken as it is. Throws as check_growth.
    std::string replace(std::string_view subject, std::string_view content) const;

 private:
    std::variant<std::string, regex> matcher_;
};

}  // namespace gptq::model::detail

#ifndef GPTQ_COMPILED
#include <gptq/model/impl/tokenizer_regex.hpp>
#endif
