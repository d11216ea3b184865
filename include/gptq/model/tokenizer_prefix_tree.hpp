// All strings of a set that a text begins with, and where in a text strings of a set are.
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
    explicit prefix_tree(std::vector<entry> entries = {});

    /// Nodes, the root among them. The parent of a node comes before it.
    std::size_t size() const { return nodes_.size(); }

    /// The node below `parent` (0 is the root) for one more byte; 0 where there is none.
    std::size_t child(std::size_t parent, unsigned char byte) const;

    /// The value of the entry that ends at the node; negative where none does.
    std::int32_t value(std::size_t at) const { return nodes_[at].value; }

    /// Calls visit(node, its child) for every node but the root, parents first.
    template <class Visit>
    void for_each_child(Visit&& visit) const {
        for (std::size_t at = 0; at < nodes_.size(); ++at)
            for (std::size_t i = 0; i < nodes_[at].children; ++i) visit(at, nodes_[at].first_child + i);
    }

    unsigned char byte(std::size_t at) const { return nodes_[at].byte; }

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

    std::vector<node> nodes_;
};

/// Finds the longest string of a set that begins at each byte of a text, in one pass whatever the strings are: the
/// automaton of Aho and Corasick (1975) over strings and text that are both read from their ends.
class longest_finder {
 public:
    longest_finder() : longest_finder(std::vector<prefix_tree::entry>()) {}

    /// The texts are all different and not empty. They need not outlive the call.
    explicit longest_finder(const std::vector<prefix_tree::entry>& entries);

    struct found {
        std::size_t begin;
        std::size_t end;
        std::int32_t value;
    };

    /// What is found from left to right, the longest string at the first place where any begins, and on from its end.
    std::vector<found> find_all(std::string_view text) const;

 private:
    /// The reversed strings that a node's string ends with.
    struct link {
        std::size_t shorter = 0;  ///< The node of the longest proper end of its string that is a node.
        std::size_t entry = 0;    ///< The node of the longest end of its string that is an entry; 0 where none is.
    };

    static prefix_tree reversed(const std::vector<prefix_tree::entry>& entries);

    std::size_t next(std::size_t at, unsigned char byte) const;

    prefix_tree tree_;
    std::vector<link> links_;          // by node
    std::vector<std::size_t> depths_;  // by node: the length of its string
};

}  // namespace gptq::model::detail

#ifndef GPTQ_COMPILED
#include <gptq/model/impl/tokenizer_prefix_tree.hpp>
#endif
