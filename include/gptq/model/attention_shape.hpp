// attention_shape: what attention is taken over; rotary_heads: which features of heads turn together.
#pragma once

#include <cstddef>
#include <utility>

namespace gptq::model {

/// Queries, keys and values lie in windows, one after the other, that do not see each other; a window's queries belong
/// to the last positions of its keys.
struct attention_shape {
    std::size_t heads = 1;     ///< a multiple of kv_heads
    std::size_t kv_heads = 1;  ///< each is read by as many heads, which follow one another
    std::size_t head_dim = 0;
    float scale = 1.0f;       ///< scores are multiplied by it; positive
    std::size_t span = 0;     ///< a token sees so many positions up to and including its own; 0: all
    std::size_t queries = 0;  ///< rows of a window in q
    std::size_t keys = 0;     ///< rows of a window in k and v, at least as many
    float cap = 0.0f;         ///< a score s becomes cap tanh(s / cap); 0: it stays

    /// Heads that read the same keys.
    constexpr std::size_t group() const { return heads / kv_heads; }

    /// The positions that query r of a window sees: from the first up to and without the second.
    constexpr std::pair<std::size_t, std::size_t> seen_by(std::size_t r) const {
        const std::size_t end = keys - queries + r + 1;
        return {span != 0 && end > span ? end - span : 0, end};
    }
};

/// Heads whose first features turn in pairs: i with i + n where n pairs turn, or the neighbours 2 i and 2 i + 1.
struct rotary_heads {
    std::size_t head_dim = 0;
    bool neighbours = false;

    /// The features of pair i of n.
    constexpr std::pair<std::size_t, std::size_t> pair(std::size_t i, std::size_t n) const {
        return neighbours ? std::pair(2 * i, 2 * i + 1) : std::pair(i, i + n);
    }
};

}  // namespace gptq::model
