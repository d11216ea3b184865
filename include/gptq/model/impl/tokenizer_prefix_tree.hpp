// The bodies of <gptq/model/tokenizer_prefix_tree.hpp>.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
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

}  // namespace detail
}  // namespace gptq::model
