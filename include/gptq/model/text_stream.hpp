// Text of tokens that come one by one, as far as it is certain.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <gptq/model/tokenizer.hpp>

namespace gptq::model {

/// Hands out the text that tokens add to a prompt's: whole characters only, and nothing that may turn out to be the
/// beginning of a stop string. All that it hands out, one piece after the other, is what the tokenizer makes of the
/// tokens at once, up to the first stop string.
class text_stream {
 public:
    /// Throws unsupported_error for a stop string without a character.
    text_stream(tokenizer tokens, std::span<const std::int32_t> prompt, std::vector<std::string> stops = {});

    /// The text that is certain after one more token; nothing after a stop string.
    std::string add(std::int32_t id);

    /// The rest, when no more tokens come: a character that is cut off becomes U+FFFD.
    std::string finish();

    /// Whether a stop string has come up.
    bool stopped() const { return stopped_; }

 private:
    static constexpr std::string_view replacement = "\xEF\xBF\xBD";

    std::string text_from(std::size_t first) const { return tokens_.decode(std::span(ids_).subspan(first)); }

    /// Later tokens are read behind the latest ones only: what a token's text is depends on whether any is before it.
    void move_on(std::size_t size);

    /// How many bytes at the end of the held text may begin a stop string.
    std::size_t stop_prefix() const;

    /// The held text but for its last `kept` bytes, or what is before the first stop string.
    std::string release(std::size_t kept);

    tokenizer tokens_;
    std::vector<std::string> stops_;
    std::vector<std::int32_t> ids_;
    std::size_t first_ = 0;  // the first token of those that are read again
    std::size_t read_ = 0;   // the first token whose text is not known
    std::size_t known_ = 0;  // bytes of the text of tokens first_ to read_
    std::string held_;
    bool stopped_ = false;
};

}  // namespace gptq::model

#ifndef GPTQ_COMPILED
#include <gptq/model/impl/text_stream.hpp>
#endif
