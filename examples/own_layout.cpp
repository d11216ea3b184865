// A layout of one's own: bit planes, as bit-serial kernels read them.
//
//     32 codes of a row -> one word a bit; word p of the run holds bit p of code i in its bit i
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <iostream>

#include <gptq/gptq.hpp>
#include <gptq/testing/conformance.hpp>

#include "check.hpp"
#include "random_layer.hpp"

//! [head]
struct bit_planes {
    static constexpr bool scales_by_group = false;  // scales lie as [out_features, groups]
    static constexpr int min_zero = 0;
    static constexpr bool supports(int bits) { return bits >= 2 && bits <= 8; }
    static void check_shape(std::size_t, std::size_t) {}  // any

    template <int Bits>
    static constexpr gptq::extent2 code_words(std::size_t out_features, std::size_t in_features) {
        return {out_features, (in_features + 31) / 32 * Bits};
    }
    //! [head]
    template <int Bits>
    static void pack_codes(gptq::matrix_view<const std::uint8_t> codes, gptq::matrix_view<std::uint32_t> words) {
        for (std::size_t n = 0; n < codes.rows; ++n) {
            std::ranges::fill(words.row(n), 0u);
            for (std::size_t k = 0; k < codes.cols; ++k)
                for (std::size_t p = 0; p < Bits; ++p)
                    words(n, k / 32 * Bits + p) |= ((std::uint32_t{codes(n, k)} >> p) & 1u) << (k % 32);
        }
    }
    template <int Bits>
    static void unpack_codes(gptq::matrix_view<const std::uint32_t> words, gptq::matrix_view<std::uint8_t> codes) {
        for (std::size_t n = 0; n < codes.rows; ++n)
            for (std::size_t k = 0; k < codes.cols; ++k) {
                std::uint32_t code = 0;
                for (std::size_t p = 0; p < Bits; ++p) code |= ((words(n, k / 32 * Bits + p) >> (k % 32)) & 1u) << p;
                codes(n, k) = static_cast<std::uint8_t>(code);
            }
    }

    // Zero points, one row an output feature, in the same way.
    template <int Bits>
    static constexpr gptq::extent2 zero_words(std::size_t out_features, std::size_t groups) {
        return code_words<Bits>(out_features, groups);
    }
    template <int Bits>
    static void pack_zeros(gptq::matrix_view<const std::uint8_t> zeros, gptq::matrix_view<std::uint32_t> words) {
        pack_codes<Bits>(zeros, words);
    }
    template <int Bits>
    static void unpack_zeros(gptq::matrix_view<const std::uint32_t> words, gptq::matrix_view<std::uint8_t> zeros) {
        unpack_codes<Bits>(words, zeros);
    }
};

static_assert(gptq::PackLayout<bit_planes>);

int main() {
    check_conforms(gptq::testing::check_layout<bit_planes>());

    // 5 bits, which checkpoints do not have.
    //! [use]
    using w5 = gptq::scheme<5, gptq::group_size<32>, gptq::asymmetric>;
    const auto q = gptq::round_to_nearest<w5>(random_matrix(7, 100, 1));
    const auto t = gptq::pack<bit_planes>(q);
    const auto back = gptq::unpack<bit_planes, w5>(t);
    //! [use]
    check(back.codes == q.codes && back.zeros == q.zeros && back.scales == q.scales, "round trip");
    std::cout << t.qweight.size() << " words for " << q.codes.size() << " codes of 5 bits\n";
    check(t.qweight.size() == 7 * 4 * 5, "4 runs of 32 codes, 5 words each");
}
