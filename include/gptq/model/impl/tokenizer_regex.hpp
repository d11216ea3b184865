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
#include <gptq/model/tokenizer_oniguruma.hpp>
#include <gptq/model/tokenizer_regex.hpp>
#include <gptq/model/tokenizer_unicode.hpp>
#include <gptq/quote.hpp>

namespace gptq::model {
namespace detail {

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
        node.fail("the regular expression " + in_quotes(pattern) + " is wrong at character " + std::to_string(offset) +
                  ": " + message(code));
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
        throw unsupported_error("the tokenizer's regular expression " + in_quotes(pattern_) +
                                " fails on this text: " + message(count));
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
