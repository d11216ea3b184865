// The bodies of <gptq/model/tokenizer_prefix_tree.hpp>.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <gptq/compiled.hpp>
#include <gptq/model/tokenizer_prefix_tree.hpp>

namespace gptq::model {
namespace detail {

GPTQ_INLINE prefix_tree::prefix_tree(std::vector<entry> entries) {
    std::sort(entries.begin(), entries.end(), [](const entry& a, const entry& b) { return a.text < b.text; });
    /// The entries below a node, all of which begin with the same `depth` bytes.
    struct range {
        std::size_t begin, end, depth;
    };
    nodes_.push_back({0, -1, 0, 0});
    std::vector<range> ranges{{0, entries.size(), 0}};
    for (std::size_t at = 0; at < nodes_.size(); ++at) {
        auto [begin, end, depth] = ranges[at];
        if (begin < end && entries[begin].text.size() == depth) nodes_[at].value = entries[begin++].value;
        nodes_[at].first_child = nodes_.size();
        while (begin < end) {
            const char byte = entries[begin].text[depth];
            const std::size_t first = begin;
            while (begin < end && entries[begin].text[depth] == byte) ++begin;
            ++nodes_[at].children;
            nodes_.push_back({0, -1, 0, static_cast<unsigned char>(byte)});
            ranges.push_back({first, begin, depth + 1});
        }
    }
}

GPTQ_INLINE std::size_t prefix_tree::child(std::size_t parent, unsigned char byte) const {
    const auto first = nodes_.begin() + static_cast<std::ptrdiff_t>(nodes_[parent].first_child);
    const auto last = first + nodes_[parent].children;
    const auto found = std::lower_bound(first, last, byte, [](const node& n, unsigned char b) { return n.byte < b; });
    return found == last || found->byte != byte ? 0 : static_cast<std::size_t>(found - nodes_.begin());
}

GPTQ_INLINE prefix_tree longest_finder::reversed(const std::vector<prefix_tree::entry>& entries) {
    std::vector<std::string> texts;
    texts.reserve(entries.size());
    for (const auto& e : entries) texts.emplace_back(e.text.rbegin(), e.text.rend());
    std::vector<prefix_tree::entry> turned;
    turned.reserve(entries.size());
    for (std::size_t i = 0; i < entries.size(); ++i) turned.push_back({texts[i], entries[i].value});
    return prefix_tree(std::move(turned));
}

GPTQ_INLINE longest_finder::longest_finder(const std::vector<prefix_tree::entry>& entries)
    : tree_(reversed(entries)), links_(tree_.size()), depths_(tree_.size()) {
    tree_.for_each_child([&](std::size_t parent, std::size_t at) {
        depths_[at] = depths_[parent] + 1;
        if (parent != 0) links_[at].shorter = next(links_[parent].shorter, tree_.byte(at));
        links_[at].entry = tree_.value(at) >= 0 ? at : links_[links_[at].shorter].entry;
    });
}

GPTQ_INLINE std::size_t longest_finder::next(std::size_t at, unsigned char byte) const {
    for (;; at = links_[at].shorter) {
        const std::size_t below = tree_.child(at, byte);
        if (below != 0 || at == 0) return below;
    }
}

GPTQ_INLINE std::vector<longest_finder::found> longest_finder::find_all(std::string_view text) const {
    std::vector<found> all;  // from right to left, the longest at each place
    if (tree_.size() == 1) return all;
    std::size_t at = 0;
    for (std::size_t begin = text.size(); begin-- > 0;) {
        at = next(at, static_cast<unsigned char>(text[begin]));
        if (const std::size_t entry = links_[at].entry; entry != 0)
            all.push_back({begin, begin + depths_[entry], tree_.value(entry)});
    }
    std::reverse(all.begin(), all.end());
    std::size_t done = 0;
    std::erase_if(all, [&](const found& match) {
        if (match.begin < done) return true;
        done = match.end;
        return false;
    });
    return all;
}

}  // namespace detail
}  // namespace gptq::model
