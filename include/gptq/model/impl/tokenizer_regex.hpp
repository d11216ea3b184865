// The bodies of <gptq/model/tokenizer_regex.hpp>.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <ctime>
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
#include <gptq/model/tokenizer_oniguruma.hpp>
#include <gptq/model/tokenizer_regex.hpp>
#include <gptq/model/tokenizer_unicode.hpp>
#include <gptq/quote.hpp>

namespace gptq::model {
namespace detail {

GPTQ_INLINE void check_growth(std::size_t size, std::size_t original) {
    if (size > max_growth_bytes && (size - max_growth_bytes) / max_growth > original)
        throw unsupported_error("the tokenizer makes more than " + std::to_string(size) + " bytes of a text of " +
                                std::to_string(original) + "; its normalizer or pre-tokenizer is damaged");
}

GPTQ_INLINE regex::regex(const std::string& pattern, const json_node& node) : pattern_(pattern) {
    const std::unique_ptr<pcre2_compile_context, decltype(&pcre2_compile_context_free)> context(
        pcre2_compile_context_create(nullptr), &pcre2_compile_context_free);
    if (!context) throw std::bad_alloc();
    pcre2_set_newline(context.get(), PCRE2_NEWLINE_LF);
    pcre2_set_max_pattern_length(context.get(), max_pattern_bytes);
    int code = 0;
    PCRE2_SIZE offset = 0;
    // Ruby's ^ and $ match at every line, hence MULTILINE.
    constexpr std::uint32_t options = PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C;
    code_.reset(pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern.data()), pattern.size(), options, &code, &offset,
                              context.get()),
                pcre2_code_free);
    if (!code_) {
        node.fail("the regular expression " + in_quotes(pattern) + " is wrong at character " + std::to_string(offset) +
                  ": " + message(code));
    }
    pcre2_jit_compile(code_.get(), PCRE2_JIT_COMPLETE);  // where there is no JIT, matching works without it
}

GPTQ_INLINE regex::search::search(std::string_view text)
    : subject(text),
      data(pcre2_match_data_create(1, nullptr), &pcre2_match_data_free),
      context(pcre2_match_context_create(nullptr), &pcre2_match_context_free),
      begin(std::chrono::steady_clock::now()) {
    if (!data || !context) throw std::bad_alloc();
}

GPTQ_INLINE int regex::try_match(search& state, std::size_t from, std::uint32_t steps) const {
    pcre2_set_match_limit(state.context.get(), steps);
    const auto* text = reinterpret_cast<PCRE2_SPTR>(state.subject.data());
    const auto run = [&](std::uint32_t options) {
        return pcre2_match(code_.get(), text, state.subject.size(), from, PCRE2_NO_UTF_CHECK | options,
                           state.data.get(), state.context.get());
    };
    const int count = run(0);
    // The JIT's default stack is small. The interpreter keeps its own on the heap, within PCRE2's limits.
    return count == PCRE2_ERROR_JIT_STACKLIMIT ? run(PCRE2_NO_JIT) : count;
}

/// Seconds that the thread has computed.
inline double thread_seconds() {
    timespec time{};
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
    return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
}

GPTQ_INLINE bool regex::took_too_long(search& state) {
    const double allowed = seconds_per_walk + seconds_per_byte * static_cast<double>(state.subject.size());
    const std::chrono::duration<double> passed = std::chrono::steady_clock::now() - state.begin;
    if (passed.count() < allowed) return false;
    if (!state.busy_since) state.busy_since = thread_seconds();
    return thread_seconds() - *state.busy_since > allowed;
}

GPTQ_INLINE bool regex::match(search& state, std::size_t from) const {
    const auto fail = [&](const std::string& reason) {
        throw unsupported_error("the tokenizer's regular expression " + in_quotes(pattern_) +
                                " fails on this text: " + reason);
    };
    // A match cannot be interrupted, but for its number of steps: each attempt takes no more than a few times as long
    // as the one before it.
    int count = PCRE2_ERROR_MATCHLIMIT;
    for (std::uint32_t steps = 250; count == PCRE2_ERROR_MATCHLIMIT && steps < std::uint32_t{1} << 30; steps *= 4) {
        count = try_match(state, from, steps);
        if (took_too_long(state)) fail("it takes too long");
    }
    if (count < 0 && count != PCRE2_ERROR_NOMATCH) fail(message(count));
    return count >= 0;
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
        check_growth(out.size(), subject.size());
    });
    out += subject.substr(done);
    return out;
}

}  // namespace detail
}  // namespace gptq::model
