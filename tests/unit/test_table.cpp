#include <algorithm>
#include <cmath>
#include <cstddef>
#include <random>
#include <vector>

#include <gptq/model/table.hpp>

#include "support/catch.hpp"

namespace {

using gptq::model::table;

enum class dtype { f16, bf16, f32 };

/// Numbers that tensors of such a type can hold, also subnormal ones and zeros of both signs.
gptq::tensor2<float> numbers_of(dtype type, std::size_t rows, std::size_t cols) {
    std::mt19937 random(3);
    std::normal_distribution<float> normal;
    auto values = gptq::make_tensor2<float>(rows, cols);
    for (std::size_t i = 0; i < values.size(); ++i) {
        float x = normal(random) * std::ldexp(1.0f, -static_cast<int>(random() % 22));
        if (i % 11 == 0) x = i % 2 == 0 ? 0.0f : -0.0f;
        if (type == dtype::f16) x = gptq::to_float(gptq::to_half(x));
        if (type == dtype::bf16) x = gptq::to_float(gptq::to_bfloat16(x));
        values.data()[i] = x;
    }
    return values;
}

template <class T>
gptq::matrix<T> narrowed(const gptq::tensor2<float>& values) {
    gptq::matrix<T> all(values.shape()[0], values.shape()[1]);
    std::transform(values.begin(), values.end(), all.data(), [](float x) { return gptq::narrow<T>(x); });
    return all;
}

table table_of(const gptq::tensor2<float>& values, dtype type) {
    if (type == dtype::f16) return narrowed<gptq::half>(values);
    if (type == dtype::bf16) return narrowed<gptq::bfloat16>(values);
    return gptq::tensor2<float>(values);
}

}  // namespace

TEST_CASE("a table holds what the file has, in whatever numbers") {
    for (const dtype type : {dtype::f16, dtype::bf16, dtype::f32}) {
        const auto values = numbers_of(type, 50, 37);
        const table t = table_of(values, type);
        CHECK(t.rows() == 50);
        CHECK(t.cols() == 37);
        const auto floats = t.floats();
        CHECK(floats == values);
        std::size_t wrong_signs = 0;
        for (std::size_t i = 0; i < values.size(); ++i)
            wrong_signs += std::signbit(floats.data()[i]) != std::signbit(values.data()[i]);
        CHECK(wrong_signs == 0);
        std::vector<float> row(37);
        t.copy_row(49, 3.0f, row);
        for (std::size_t i = 0; i < row.size(); ++i) CHECK(row[i] == 3.0f * values(49, i));
    }
}

TEST_CASE("products with a table, of few rows and of many, over several slabs") {
    for (const dtype type : {dtype::f16, dtype::bf16, dtype::f32}) {
        const auto values = numbers_of(type, 4100, 65), inputs = numbers_of(dtype::f32, 7, 65);
        const table t = table_of(values, type);
        for (const std::size_t rows : {1u, 4u, 7u}) {
            auto y = gptq::make_tensor2<float>(rows, 4100);
            t.multiply(gptq::view_of(inputs).block(0, rows, 0, 65), gptq::view_of(y));
            double worst = 0.0;
            for (std::size_t r = 0; r < rows; ++r)
                for (std::size_t n = 0; n < 4100; ++n) {
                    double expected = 0.0, magnitude = 0.0;
                    for (std::size_t k = 0; k < 65; ++k) {
                        expected += double{inputs(r, k)} * double{values(n, k)};
                        magnitude += std::fabs(double{inputs(r, k)} * double{values(n, k)});
                    }
                    worst = std::max(worst, std::fabs(y(r, n) - expected) / magnitude);
                }
            CAPTURE(static_cast<int>(type), rows);
            CHECK(worst < 1e-5);
        }
    }
}
