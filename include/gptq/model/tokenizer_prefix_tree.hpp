// All strings of a set that a text begins with.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

namespace gptq::model::detail {

/// A tree of bytes in one array: the children of a node are neighbours in it, in order of their bytes.
class prefix_tree {
 public:
    struct entry {
        std::string_view text;
        std::int32_t value;  ///< Not negative.
    };

    /// The texts are all different. They need not outlive the call.
    explicit prefix_tree(std::vector<entry> entries);

    /// Calls visit(length, value) for every entry that `text` begins with, the shortest first. Empty ones do not count.
    template <class Visit>
    void for_each_prefix(std::string_view text, Visit&& visit) const {
        std::size_t at = 0;
        for (std::size_t length = 1; length <= text.size(); ++length) {
            at = child(at, static_cast<unsigned char>(text[length - 1]));
            if (at == 0) return;
            if (nodes_[at].value >= 0) visit(length, nodes_[at].value);
        }
    }

 private:
    struct node {
        std::size_t first_child;
        std::int32_t value;  // negative where no entry ends
        std::uint16_t children;
        unsigned char byte;
    };

    /// 0, the root, where there is none.
    std::size_t child(std::size_t parent, unsigned char byte) const;

    std::vector<node> nodes_;
};

}  // namespace gptq::model::detail

#ifndef GPTQ_COMPILED
#include <gptq/model/impl/tokenizer_prefix_tree.hpp>
#endif
