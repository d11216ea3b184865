// Every layout of the library conforms, and the check finds layouts that do not.
#include <cstdint>
#include <stdexcept>

#include <gptq/layouts/awq.hpp>
#include <gptq/layouts/compressed_tensors.hpp>
#include <gptq/layouts/gptq.hpp>
#include <gptq/testing/conformance.hpp>

#include "support/catch.hpp"
#include "violates.hpp"

using gptq::matrix_view;
using gptq::layout::compressed_tensors;
using gptq::layout::gptq_v1;
using gptq::layout::gptq_v2;
using gptq::testing::check_layout;
using gptq_test::violates;

namespace {

using codes_view = matrix_view<const std::uint8_t>;
using words_view = matrix_view<std::uint32_t>;

/// Packs rows as if they followed each other without a gap.
struct forgets_ld : compressed_tensors {
    template <int Bits>
    static void pack_codes(codes_view codes, words_view words) {
        words.ld = words.cols;
        compressed_tensors::pack_codes<Bits>(codes, words);
    }
};

struct adds_to_what_was_there : gptq_v2 {
    template <int Bits>
    static void pack_codes(codes_view codes, words_view words) {
        gptq::matrix<std::uint32_t> fresh(words.rows, words.cols);
        gptq_v2::pack_codes<Bits>(codes, fresh.view());
        for (std::size_t r = 0; r < words.rows; ++r)
            for (std::size_t c = 0; c < words.cols; ++c) words(r, c) |= fresh(r, c);
    }
};

/// Fills the last word of a row up with ones.
struct leaves_stray_bits : compressed_tensors {
    template <int Bits>
    static void pack_codes(codes_view codes, words_view words) {
        compressed_tensors::pack_codes<Bits>(codes, words);
        const std::size_t used = codes.cols * Bits % 32;
        for (std::size_t r = 0; used != 0 && r < words.rows; ++r) words(r, words.cols - 1) |= ~0u << used;
    }
};

struct says_more_words_than_it_writes : gptq_v2 {
    template <int Bits>
    static constexpr gptq::extent2 code_words(std::size_t out_features, std::size_t in_features) {
        return {gptq::stream_words<Bits>(in_features) + 1, out_features};
    }
};

struct swaps_zeros : gptq_v2 {
    template <int Bits>
    static void unpack_zeros(matrix_view<const std::uint32_t> words, matrix_view<std::uint8_t> zeros) {
        gptq_v2::unpack_zeros<Bits>(words, zeros);
        for (std::size_t n = 0; n + 1 < zeros.rows; n += 2) std::swap(zeros(n, 0), zeros(n + 1, 0));
    }
};

/// gptq_v1 with the range of gptq_v2: a zero point of 0 wraps, which field-wise readers undo, but is stored with more
/// bits than a field has.
struct claims_zero_of_zero : gptq_v1 {
    static constexpr int min_zero = 0;
};

struct is_off_for_three_bits : gptq_v2 {
    template <int Bits>
    static void unpack_codes(matrix_view<const std::uint32_t> words, matrix_view<std::uint8_t> codes) {
        gptq_v2::unpack_codes<Bits>(words, codes);
        if (Bits == 3)
            for (std::size_t n = 0; n < codes.rows; ++n) codes(n, 10) &= 3;  // loses the bit beyond the first word
    }
};

struct refuses_namelessly : gptq_v2 {
    static void check_shape(std::size_t N, std::size_t K) {
        if (N % 32 != 0 || K % 32 != 0) throw gptq::shape_error("bad shape");
    }
};

struct refuses_with_something_else : gptq_v2 {
    static void check_shape(std::size_t N, std::size_t K) {
        if (N % 32 != 0 || K % 32 != 0) throw std::invalid_argument(gptq::shape_string(N, K));
    }
};

struct refuses_everything : gptq_v2 {
    static void check_shape(std::size_t N, std::size_t K) { throw gptq::shape_error(gptq::shape_string(N, K)); }
};

}  // namespace

TEST_CASE("the library's layouts conform") {
    const gptq::testing::violations none;
    CHECK(check_layout<gptq_v1>() == none);
    CHECK(check_layout<gptq_v2>() == none);
    CHECK(check_layout<compressed_tensors>() == none);
    CHECK(check_layout<gptq::layout::awq>() == none);
}

TEST_CASE("the check finds broken layouts") {
    CHECK(violates(check_layout<forgets_ld>(), "PackLayout 1"));
    CHECK(violates(check_layout<adds_to_what_was_there>(), "PackLayout 2"));
    CHECK(violates(check_layout<leaves_stray_bits>(), "PackLayout 2"));
    CHECK(violates(check_layout<says_more_words_than_it_writes>(), "PackLayout 2"));
    CHECK(violates(check_layout<is_off_for_three_bits>(), "PackLayout 2"));
    CHECK(violates(check_layout<swaps_zeros>(), "PackLayout 3"));
    CHECK(violates(check_layout<claims_zero_of_zero>(), "PackLayout 3"));
    CHECK(violates(check_layout<refuses_namelessly>(), "PackLayout 4"));
    CHECK(violates(check_layout<refuses_with_something_else>(), "PackLayout 4"));
    CHECK(violates(check_layout<refuses_everything>(), "PackLayout 4"));
}
