// The bodies of <gptq/model/text_stream.hpp>.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <gptq/compiled.hpp>
#include <gptq/error.hpp>
#include <gptq/model/text_stream.hpp>
#include <gptq/model/tokenizer.hpp>

namespace gptq::model {

GPTQ_INLINE text_stream::text_stream(tokenizer tokens, std::span<const std::int32_t> prompt,
                                     std::vector<std::string> stops)
    : tokens_(std::move(tokens)), stops_(std::move(stops)), ids_(prompt.begin(), prompt.end()) {
    for (const std::string& stop : stops_)
        if (stop.empty()) throw unsupported_error("a stop string is empty; give at least one character");
    read_ = ids_.size();
    known_ = text_from(0).size();
}

GPTQ_INLINE std::string text_stream::add(std::int32_t id) {
    ids_.push_back(id);
    const std::string text = text_from(first_);
    if (stopped_ || text.ends_with(replacement) || text.size() <= known_) return {};
    held_ += text.substr(known_);
    move_on(text.size());
    return release(stop_prefix());
}

GPTQ_INLINE std::string text_stream::finish() {
    if (stopped_) return {};
    const std::string text = text_from(first_);
    if (text.size() > known_) held_ += text.substr(known_);
    known_ = text.size();
    return release(0);
}

GPTQ_INLINE void text_stream::move_on(std::size_t size) {
    const std::string latest = text_from(read_);
    known_ = latest.empty() ? size : latest.size();
    if (!latest.empty()) first_ = read_;
    read_ = ids_.size();
}

GPTQ_INLINE std::size_t text_stream::stop_prefix() const {
    std::size_t longest = 0;
    for (const std::string& stop : stops_)
        for (std::size_t n = std::min(stop.size() - 1, held_.size()); n > longest; --n)
            if (std::string_view(held_).ends_with(std::string_view(stop).substr(0, n))) longest = n;
    return longest;
}

GPTQ_INLINE std::string text_stream::release(std::size_t kept) {
    std::size_t end = std::string::npos;
    for (const std::string& stop : stops_) end = std::min(end, held_.find(stop));
    stopped_ = end != std::string::npos;
    if (!stopped_) end = held_.size() - kept;
    std::string text = held_.substr(0, end);
    held_.erase(0, end);
    return text;
}

}  // namespace gptq::model
