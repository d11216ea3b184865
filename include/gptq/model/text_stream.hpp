// Text of tokens that come one by one, as far as it is certain.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <gptq/error.hpp>
#include <gptq/model/tokenizer.hpp>

namespace gptq::model {

/// Hands out the text that tokens add to a prompt's: whole characters only, and nothing that may turn out to be the
/// beginning of a stop string. All that it hands out, one piece after the other, is what the tokenizer makes of the
/// tokens at once, up to the first stop string.
class text_stream {
 public:
    /// Throws unsupported_error for a stop string without a character.
    text_stream(tokenizer tokens, std::span<const std::int32_t> prompt, std::vector<std::string> stops = {})
        : tokens_(std::move(tokens)), stops_(std::move(stops)), ids_(prompt.begin(), prompt.end()) {
        for (const std::string& stop : stops_)
            if (stop.empty()) throw unsupported_error("a stop string is empty; give at least one character");
        read_ = ids_.size();
        known_ = text_from(0).size();
    }

    /// The text that is certain after one more token; nothing after a stop string.
    std::string add(std::int32_t id) {
        ids_.push_back(id);
        const std::string text = text_from(first_);
        if (stopped_ || text.ends_with(replacement) || text.size() <= known_) return {};
        held_ += text.substr(known_);
        move_on(text.size());
        return release(stop_prefix());
    }

    /// The rest, when no more tokens come: a character that is cut off becomes U+FFFD.
    std::string finish() {
        if (stopped_) return {};
        const std::string text = text_from(first_);
        if (text.size() > known_) held_ += text.substr(known_);
        known_ = text.size();
        return release(0);
    }

    /// Whether a stop string has come up.
    bool stopped() const { return stopped_; }

 private:
    static constexpr std::string_view replacement = "\xEF\xBF\xBD";

    std::string text_from(std::size_t first) const { return tokens_.decode(std::span(ids_).subspan(first)); }

    /// Later tokens are read behind the latest ones only: what a token's text is depends on whether any is before it.
    void move_on(std::size_t size) {
        const std::string latest = text_from(read_);
        known_ = latest.empty() ? size : latest.size();
        if (!latest.empty()) first_ = read_;
        read_ = ids_.size();
    }

    /// How many bytes at the end of the held text may begin a stop string.
    std::size_t stop_prefix() const {
        std::size_t longest = 0;
        for (const std::string& stop : stops_)
            for (std::size_t n = std::min(stop.size() - 1, held_.size()); n > longest; --n)
                if (std::string_view(held_).ends_with(std::string_view(stop).substr(0, n))) longest = n;
        return longest;
    }

    /// The held text but for its last `kept` bytes, or what is before the first stop string.
    std::string release(std::size_t kept) {
        std::size_t end = std::string::npos;
        for (const std::string& stop : stops_) end = std::min(end, held_.find(stop));
        stopped_ = end != std::string::npos;
        if (!stopped_) end = held_.size() - kept;
        std::string text = held_.substr(0, end);
        held_.erase(0, end);
        return text;
    }

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
