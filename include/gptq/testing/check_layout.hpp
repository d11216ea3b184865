// check_layout: holds a PackLayout to its sentences in <gptq/concepts.hpp>.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <string>
#include <utility>
#include <vector>

#include <gptq/concepts.hpp>
#include <gptq/error.hpp>
#include <gptq/matrix_view.hpp>
#include <gptq/testing/violations.hpp>

namespace gptq::testing {

namespace detail {

/// A matrix inside a larger one, of which every element outside must stay as it was.
template <class T>
class guarded_matrix {
 public:
    guarded_matrix(std::size_t rows, std::size_t cols, T guard)
        : all_(rows + 2, cols + 3), rows_(rows), cols_(cols), guard_(guard) {
        std::fill_n(all_.data(), all_.rows() * all_.cols(), guard);
    }

    matrix_view<T> view() { return all_.view().block(1, rows_, 2, cols_); }
    matrix_view<const T> view() const { return all_.view().block(1, rows_, 2, cols_); }

    bool guard_intact() const {
        for (std::size_t r = 0; r < all_.rows(); ++r)
            for (std::size_t c = 0; c < all_.cols(); ++c) {
                const bool inside = r >= 1 && r <= rows_ && c >= 2 && c < cols_ + 2;
                if (!inside && all_(r, c) != guard_) return false;
            }
        return true;
    }

 private:
    matrix<T> all_;
    std::size_t rows_, cols_;
    T guard_;
};

/// What is packed: codes, or zero points.
struct packed_kind {
    const char* name;
    int sentence;
    std::size_t rows, cols;  // of the codes
    extent2 words;
    int lowest, highest;  // the codes that occur
};

template <class L, int Bits>
class layout_check {
 public:
    layout_check(std::size_t out_features, std::size_t in_features) : n_(out_features), k_(in_features) {}

    violations run() {
        constexpr int max_code = (1 << Bits) - 1;
        check(
            packed_kind{"codes", 2, n_, k_, L::template code_words<Bits>(n_, k_), 0, max_code},
            [](auto codes, auto words) { L::template pack_codes<Bits>(codes, words); },
            [](auto words, auto codes) { L::template unpack_codes<Bits>(words, codes); });
        for (const std::size_t groups : {std::size_t{1}, std::size_t{3}, (k_ + 31) / 32})
            check(
                packed_kind{"zero points", 3, n_, groups, L::template zero_words<Bits>(n_, groups), L::min_zero,
                            max_code},
                [](auto zeros, auto words) { L::template pack_zeros<Bits>(zeros, words); },
                [](auto words, auto zeros) { L::template unpack_zeros<Bits>(words, zeros); });
        return std::move(found_);
    }

 private:
    static constexpr std::uint32_t untouched = 0xdeadbeef;

    void report(int sentence, const std::string& what) {
        found_.push_back(violation("PackLayout", sentence,
                                   std::to_string(Bits) + " bits, layer " + shape_string(n_, k_) + ": " + what));
    }

    /// Packs and unpacks random codes some forty times: after that every bit that can change has changed.
    template <class Pack, class Unpack>
    void check(const packed_kind& p, const Pack& pack, const Unpack& unpack) {
        const std::string of = std::string(" of ") + p.name + " ";
        random_numbers random(n_ * 1000 + k_);
        matrix<std::uint32_t> first(p.words.rows, p.words.cols), changed(p.words.rows, p.words.cols);
        for (int round = 0; round < 40; ++round) {
            guarded_matrix<std::uint8_t> codes(p.rows, p.cols, 0xff), back(p.rows, p.cols, 0x55);
            fill(codes.view(), round, random, p.lowest, p.highest);
            guarded_matrix<std::uint32_t> words(p.words.rows, p.words.cols, untouched);
            pack(std::as_const(codes).view(), words.view());
            unpack(std::as_const(words).view(), back.view());
            if (!words.guard_intact())
                return report(1, "pack" + of + "writes outside of " + shape_string(p.words.rows, p.words.cols));
            if (!back.guard_intact()) return report(p.sentence, "unpack" + of + "writes outside of the codes");
            if (const auto at = first_difference(codes.view(), back.view()); !at.empty())
                return report(p.sentence, "unpack" + of + "is not the inverse of pack: " + at);
            note_changes(words.view(), round == 0, first.view(), changed.view());
        }
        for (std::size_t r = 0; r < p.words.rows; ++r)
            for (std::size_t c = 0; c < p.words.cols; ++c)
                if ((first(r, c) & ~changed(r, c)) != 0)
                    return report(p.sentence,
                                  "a bit of word " + shape_string(r, c) + of + "holds no code and is not 0");
    }

    /// Sets the bits of `changed` in which `words` differs from those of the first round.
    static void note_changes(matrix_view<const std::uint32_t> words, bool is_first, matrix_view<std::uint32_t> first,
                             matrix_view<std::uint32_t> changed) {
        for (std::size_t r = 0; r < words.rows; ++r)
            for (std::size_t c = 0; c < words.cols; ++c) {
                if (is_first) first(r, c) = words(r, c);
                changed(r, c) |= words(r, c) ^ first(r, c);
            }
    }

    /// The lowest codes, then the highest, then random ones.
    static void fill(matrix_view<std::uint8_t> codes, int round, random_numbers& random, int lowest, int highest) {
        const auto count = static_cast<std::uint32_t>(highest - lowest + 1);
        for (std::size_t r = 0; r < codes.rows; ++r)
            for (std::uint8_t& code : codes.row(r)) {
                const auto step = round == 0 ? 0 : round == 1 ? count - 1 : random.integer(count);
                code = static_cast<std::uint8_t>(static_cast<std::uint32_t>(lowest) + step);
            }
    }

    static std::string first_difference(matrix_view<const std::uint8_t> a, matrix_view<const std::uint8_t> b) {
        for (std::size_t r = 0; r < a.rows; ++r)
            for (std::size_t c = 0; c < a.cols; ++c)
                if (a(r, c) != b(r, c))
                    return std::to_string(a(r, c)) + " at row " + std::to_string(r) + ", column " + std::to_string(c) +
                           " comes back as " + std::to_string(b(r, c));
        return {};
    }

    std::size_t n_, k_;
    violations found_;
};

/// Whether L takes layers of this shape; reports a refusal that is not what sentence 4 asks for.
template <class L>
bool takes_shape(std::size_t out_features, std::size_t in_features, violations& found) {
    const std::string shape = shape_string(out_features, in_features);
    try {
        L::check_shape(out_features, in_features);
        return true;
    } catch (const shape_error& refusal) {
        const std::string message = refusal.what();
        if (message.find(std::to_string(out_features)) == std::string::npos ||
            message.find(std::to_string(in_features)) == std::string::npos)
            found.push_back(violation("PackLayout", 4, "check_shape refuses " + shape + " without naming the numbers"));
    } catch (const std::exception& other) {
        found.push_back(violation(
            "PackLayout", 4, "check_shape refuses " + shape + " by something other than shape_error: " + other.what()));
    }
    return false;
}

template <class L, int Bits>
void check_layout_bits(std::size_t out_features, std::size_t in_features, violations& found) {
    if constexpr (L::supports(Bits)) {
        try {
            const auto more = layout_check<L, Bits>(out_features, in_features).run();
            found.insert(found.end(), more.begin(), more.end());
        } catch (const std::exception& e) {
            found.push_back(violation("PackLayout", 2,
                                      std::to_string(Bits) + " bits, layer " + shape_string(out_features, in_features) +
                                          ": packing throws: " + e.what()));
        }
    }
}

}  // namespace detail

/// Holds layout L to sentences 1 to 4 of PackLayout: for every number of bits that it supports and every shape of a
/// list (small, ragged, multiples of 32 and of 256) that it takes, packing is exact, inverts, and leaves no stray bits.
/// Takes well under a second. (Sentence 5 is about files; a round trip through pack<L> and unpack<L> tests it.)
template <PackLayout L>
[[nodiscard]] violations check_layout() {
    violations found;
    bool takes_any = false;
    constexpr std::pair<std::size_t, std::size_t> shapes[] = {{1, 1},   {3, 5},   {7, 33},   {33, 31},
                                                              {32, 32}, {64, 96}, {96, 160}, {256, 256}};
    for (const auto& [n, k] : shapes) {
        if (!detail::takes_shape<L>(n, k, found)) continue;
        takes_any = true;
        detail::check_layout_bits<L, 2>(n, k, found);
        detail::check_layout_bits<L, 3>(n, k, found);
        detail::check_layout_bits<L, 4>(n, k, found);
        detail::check_layout_bits<L, 5>(n, k, found);
        detail::check_layout_bits<L, 6>(n, k, found);
        detail::check_layout_bits<L, 7>(n, k, found);
        detail::check_layout_bits<L, 8>(n, k, found);
    }
    if (!takes_any)
        found.push_back(detail::violation("PackLayout", 4, "check_shape refuses every shape that was tried"));
    return found;
}

}  // namespace gptq::testing
