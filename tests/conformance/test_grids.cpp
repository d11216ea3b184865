// Every grid of the library conforms, and the check finds grids that do not.
#include <array>
#include <cmath>
#include <cstdint>
#include <span>
#include <string>

#include <gptq/grids/affine.hpp>
#include <gptq/grids/codebook.hpp>
#include <gptq/grids/fp4.hpp>
#include <gptq/grids/fp8_e4m3.hpp>
#include <gptq/grids/mxfp4.hpp>
#include <gptq/grids/nf4.hpp>
#include <gptq/grids/nvfp4.hpp>
#include <gptq/testing/conformance.hpp>

#include "support/catch.hpp"
#include "violates.hpp"

using gptq::testing::check_grid;
using gptq_test::violates;

namespace {

template <class Grid>
void require_conforming() {
    const gptq::testing::violations none;
    CHECK(check_grid<2, Grid>() == none);
    CHECK(check_grid<3, Grid>() == none);
    CHECK(check_grid<4, Grid>() == none);
    CHECK(check_grid<5, Grid>() == none);
    CHECK(check_grid<6, Grid>() == none);
    CHECK(check_grid<7, Grid>() == none);
    CHECK(check_grid<8, Grid>() == none);
}

struct scale_is_no_half : gptq::symmetric {
    template <int Bits>
    static gptq::grid_params fit(std::span<const float> w) {
        auto p = gptq::symmetric::fit<Bits>(w);
        p.scale *= 1.0001f;
        return p;
    }
};

struct scale_may_be_zero : gptq::symmetric {
    template <int Bits>
    static gptq::grid_params fit(std::span<const float> w) {
        float largest = 0.0f;
        for (const float x : w) largest = std::max(largest, std::fabs(x));
        return {gptq::round_to_half(largest / 7.0f), 1 << (Bits - 1)};
    }
};

struct rounds_down : gptq::asymmetric {
    template <int Bits>
    static std::uint8_t encode(float x, gptq::grid_params p) {
        const float code = std::floor(x / p.scale) + static_cast<float>(p.zero);
        return static_cast<std::uint8_t>(std::clamp(code, 0.0f, static_cast<float>((1 << Bits) - 1)));
    }
};

struct clamps_one_short : gptq::symmetric {
    template <int Bits>
    static std::uint8_t encode(float x, gptq::grid_params p) {
        return std::min(gptq::symmetric::encode<Bits>(x, p), static_cast<std::uint8_t>((1 << Bits) - 2));
    }
};

struct overflows : gptq::symmetric {
    template <int Bits>
    static std::uint8_t encode(float x, gptq::grid_params p) {
        return static_cast<std::uint8_t>(gptq::symmetric::encode<Bits>(x, p) + (x > 1e6f ? 1 : 0));
    }
};

/// Codes 0 and 1 stand for the same value.
struct two_codes_for_one_value : gptq::symmetric {
    template <int Bits>
    static float decode(std::uint8_t code, gptq::grid_params p) {
        return gptq::symmetric::decode<Bits>(code == 0 ? std::uint8_t{1} : code, p);
    }
};

struct remembers : gptq::symmetric {
    mutable int calls = 0;
    template <int Bits>
    gptq::grid_params fit(std::span<const float> w) const {
        auto p = gptq::symmetric::fit<Bits>(w);
        if (++calls % 2 == 0) p.scale = gptq::round_to_half(p.scale * 1.01f);
        return p;
    }
};

struct says_it_is_symmetric : gptq::asymmetric {
    static constexpr bool sym = true;
};

struct hides_that_it_is_symmetric : gptq::symmetric {
    static constexpr bool sym = false;
};

struct says_it_is_affine : gptq::nf4 {
    static constexpr bool affine = true;
    static constexpr int min_zero = 0;
};

struct gives_the_levels_of_another : gptq::nf4 {
    template <int Bits>
    static constexpr std::array<float, 16> levels() {
        return gptq::fp4_table::values;
    }
};

/// Its levels are right where the zero point is 0, as its own always is.
struct forgets_the_zero_point : gptq::nf4 {
    template <int Bits>
    static constexpr float decode(std::uint8_t code, gptq::grid_params p) {
        return gptq::nf4::decode<Bits>(code, {p.scale, 0});
    }
};

/// As many levels as a byte has codes, further apart below 0 than above.
struct lopsided_table {
    static constexpr auto values = [] {
        std::array<float, 256> levels{};
        for (int c = 0; c < 256; ++c)
            levels[static_cast<std::size_t>(c)] = static_cast<float>(c < 100 ? 3 * (c - 100) : c - 100);
        return levels;
    }();
};
struct four_level_table {
    static constexpr std::array<float, 4> values = {-2.0f, 0.5f, 1.0f, 1.0f};
};

}  // namespace

TEST_CASE("the library's grids conform") {
    require_conforming<gptq::symmetric>();
    require_conforming<gptq::asymmetric>();
    require_conforming<gptq::asymmetric_from_one>();
    require_conforming<gptq::searched<gptq::symmetric>>();
    require_conforming<gptq::searched<gptq::asymmetric>>();
    require_conforming<gptq::searched_by_loss<gptq::symmetric>>();
    require_conforming<gptq::searched_by_loss<gptq::asymmetric_from_one>>();
}

TEST_CASE("codebooks conform, of any size, searched or not") {
    const gptq::testing::violations none;
    CHECK(check_grid<4, gptq::nf4>() == none);
    CHECK(check_grid<4, gptq::fp4>() == none);
    CHECK(check_grid<4, gptq::searched<gptq::fp4>>() == none);
    CHECK(check_grid<4, gptq::mxfp4>() == none);
    CHECK(check_grid<4, gptq::nvfp4>() == none);
    CHECK(check_grid<8, gptq::fp8_e4m3>() == none);
    CHECK(check_grid<8, gptq::searched_by_loss<gptq::fp8_e4m3>>() == none);
    CHECK(check_grid<4, gptq::searched_by_loss<gptq::nf4>>() == none);
    CHECK(check_grid<8, gptq::codebook<lopsided_table>>() == none);
    CHECK(check_grid<2, gptq::searched_by_loss<gptq::codebook<four_level_table>>>() == none);
    STATIC_REQUIRE(!gptq::QuantGrid<gptq::nf4, 3> && !gptq::QuantGrid<gptq::nf4, 8>);
}

TEST_CASE("the check finds broken grids") {
    CHECK(violates(check_grid<4, says_it_is_affine>(), "QuantGrid 7"));
    CHECK(violates(check_grid<4, gives_the_levels_of_another>(), "QuantGrid 8"));
    CHECK(violates(check_grid<4, forgets_the_zero_point>(), "QuantGrid 8"));
    CHECK(violates(check_grid<4, scale_is_no_half>(), "QuantGrid 1"));
    CHECK(violates(check_grid<4, scale_may_be_zero>(), "QuantGrid 1"));
    CHECK(violates(check_grid<4, rounds_down>(), "QuantGrid 2"));
    CHECK(violates(check_grid<4, clamps_one_short>(), "QuantGrid 2"));
    CHECK(violates(check_grid<4, overflows>(), "QuantGrid 2"));
    CHECK(violates(check_grid<4, two_codes_for_one_value>(), "QuantGrid 3"));
    CHECK(violates(check_grid<4, remembers>(), "QuantGrid 4"));
    CHECK(violates(check_grid<4, says_it_is_symmetric>(), "QuantGrid 5"));
    CHECK(violates(check_grid<4, hides_that_it_is_symmetric>(), "QuantGrid 5"));
}
