// The host context: each operation of a kernel against its definition, and every broken rule an error at the launch.
#include <array>
#include <atomic>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <random>
#include <vector>

#include <gptq/backends/cuda/host_context.hpp>

#include "support/catch.hpp"

namespace {

using namespace gptq::cuda;
using Catch::Contains;
using gptq::bfloat16;
using gptq::half;

struct alignas(16) line {
    std::array<std::uint32_t, 4> words{};
};

std::vector<line> numbered_lines(std::size_t count) {
    std::vector<line> lines(count);
    for (std::size_t i = 0; i < count; ++i)
        for (std::size_t j = 0; j < 4; ++j) lines[i].words[j] = static_cast<std::uint32_t>(4 * i + j);
    return lines;
}

template <class T>
T random_element(std::mt19937& random) {
    return gptq::narrow<T>(std::uniform_real_distribution<float>(-2.0f, 2.0f)(random));
}

template <class T>
std::uint32_t pair_of(T low, T high) {
    return low.bits | static_cast<std::uint32_t>(high.bits) << 16;
}

/// mma_16x8x16 of random matrices against the product in double, the fragments filled as the concept's page says.
template <class T>
void check_mma() {
    std::mt19937 random(1);
    std::array<std::array<T, 16>, 16> A;
    std::array<std::array<T, 8>, 16> B;
    for (auto& row : A)
        for (T& x : row) x = random_element<T>(random);
    for (auto& row : B)
        for (T& x : row) x = random_element<T>(random);
    std::array<std::array<float, 8>, 16> C{};
    host_launch({1, 32, 0}, [&](host_context& ctx) {
        const std::size_t g = ctx.lane() / 4, t = ctx.lane() % 4;
        const auto a = [&](std::size_t row, std::size_t k) { return pair_of(A[row][k], A[row][k + 1]); };
        const auto b = [&](std::size_t k) { return pair_of(B[k][g], B[k + 1][g]); };
        accumulators c{1.0f, 2.0f, 3.0f, 4.0f};
        ctx.mma_16x8x16<T>(c, {a(g, 2 * t), a(g + 8, 2 * t), a(g, 2 * t + 8), a(g + 8, 2 * t + 8)},
                           {b(2 * t), b(2 * t + 8)});
        C[g][2 * t] = c[0] - 1.0f;
        C[g][2 * t + 1] = c[1] - 2.0f;
        C[g + 8][2 * t] = c[2] - 3.0f;
        C[g + 8][2 * t + 1] = c[3] - 4.0f;
    });
    for (std::size_t row = 0; row < 16; ++row)
        for (std::size_t col = 0; col < 8; ++col) {
            double sum = 0.0;
            for (std::size_t k = 0; k < 16; ++k) sum += double{to_float(A[row][k])} * double{to_float(B[k][col])};
            CHECK(C[row][col] == Approx(sum).margin(1e-4));
        }
}

}  // namespace

TEST_CASE("every thread of every block runs once and knows who it is") {
    std::vector<std::atomic<int>> runs(3 * 64);
    host_launch({3, 64, 0}, [&](host_context& ctx) {
        if (ctx.blocks() != 3 || ctx.threads() != 64 || ctx.warp() != ctx.thread() / 32 ||
            ctx.lane() != ctx.thread() % 32)
            throw gptq::error("wrong numbers");
        ++runs[ctx.block() * 64 + ctx.thread()];
    });
    for (const auto& count : runs) CHECK(count == 1);
}

TEST_CASE("a barrier orders a block's shared memory, also when some threads have returned") {
    std::vector<std::size_t> seen(64, 0);
    host_launch({2, 64, 64 * sizeof(std::size_t)}, [&](host_context& ctx) {
        const auto values = ctx.shared<std::size_t>(0, 64);
        values[ctx.thread()] = ctx.thread() + 100 * ctx.block();
        ctx.barrier();
        if (ctx.thread() >= 32) return;
        ctx.barrier();
        ctx.warp_barrier();
        seen[ctx.block() * 32 + ctx.thread()] = values[63 - ctx.thread()];
    });
    for (std::size_t i = 0; i < 64; ++i) CHECK(seen[i] == 63 - i % 32 + 100 * (i / 32));
}

TEST_CASE("shared memory holds no number before it is written") {
    host_launch({2, 32, 256}, [](host_context& ctx) {
        const auto values = ctx.shared<float>(0, 64);
        if (!std::isnan(values[ctx.thread()])) throw gptq::error("a number");
        ctx.warp_barrier();
        values[ctx.thread()] = 1.0f;
    });
}

TEST_CASE("an asynchronous copy lands at the wait that covers it, and not before") {
    const auto lines = numbered_lines(64);
    host_launch({1, 32, 64 * sizeof(line)}, [&](host_context& ctx) {
        const auto shared = ctx.shared<line>(0, 64);
        const auto copied = [&](std::size_t i) { return shared[i].words == lines[i].words; };
        const std::size_t first = ctx.lane(), second = 32 + ctx.lane();
        ctx.copy_async<16>(shared + first, &lines[first], 16);
        ctx.commit_copies();
        ctx.copy_async<16>(shared + second, &lines[second], 16);
        ctx.commit_copies();
        if (copied(first) || copied(second)) throw gptq::error("too early");
        ctx.wait_copies<2>();
        if (copied(first)) throw gptq::error("too early");
        ctx.wait_copies<1>();
        if (!copied(first) || copied(second)) throw gptq::error("only the older of the two");
        ctx.wait_copies<0>();
        if (!copied(second)) throw gptq::error("too late");
    });
}

TEST_CASE("what a copy does not copy is cleared") {
    const auto lines = numbered_lines(33);
    host_launch({1, 32, 32 * sizeof(line)}, [&](host_context& ctx) {
        const auto shared = ctx.shared<line>(0, 32);
        const std::size_t valid = ctx.lane() % 5 * 4;
        ctx.copy_async<16>(shared + ctx.lane(), valid == 0 ? nullptr : &lines[ctx.lane() + 1], valid);
        ctx.commit_copies();
        ctx.wait_copies<0>();
        for (std::size_t j = 0; j < 4; ++j)
            if (shared[ctx.lane()].words[j] != (4 * j < valid ? lines[ctx.lane() + 1].words[j] : 0))
                throw gptq::error("word " + std::to_string(j));
    });
}

TEST_CASE("shuffles bring the value of another lane") {
    host_launch({1, 64, 0}, [](host_context& ctx) {
        const auto value = static_cast<float>(ctx.thread());
        for (std::size_t i = 0; i < 40; ++i) {
            const std::size_t other = 32 * ctx.warp() + (ctx.lane() ^ (i % 32));
            if (ctx.shuffle_xor(value, i % 32) != static_cast<float>(other)) throw gptq::error("shuffle_xor");
            const std::size_t from = 32 * ctx.warp() + i % 32;
            if (ctx.shuffle(value, i % 32) != static_cast<float>(from)) throw gptq::error("shuffle");
        }
    });
}

TEST_CASE("load_matrix_x4 distributes four matrices over the lanes") {
    const auto lines = numbered_lines(32);  // row r of matrix j is line 8 j + r
    host_launch({1, 32, 32 * sizeof(line)}, [&](host_context& ctx) {
        const auto shared = ctx.shared<line>(0, 32);
        shared[ctx.lane()] = lines[ctx.lane()];
        ctx.warp_barrier();
        const fragment_a loaded = ctx.load_matrix_x4(shared + ctx.lane());
        for (std::size_t j = 0; j < 4; ++j)
            if (loaded[j] != lines[8 * j + ctx.lane() / 4].words[ctx.lane() % 4]) throw gptq::error("load_matrix_x4");
    });
}

TEST_CASE("mma_16x8x16 is the product of the matrices whose fragments it gets") {
    check_mma<half>();
    check_mma<bfloat16>();
}

TEST_CASE("arithmetic on pairs rounds to nearest even") {
    host_launch({1, 32, 0}, [](host_context& ctx) {
        const auto pair = [&](float low, float high) { return ctx.narrow_pair<half>(low, high); };
        if (pair(1.0f, 2049.0f) != 0x68003c00u) throw gptq::error("narrow_pair<half>");
        if (ctx.narrow_pair<bfloat16>(1.0f, 257.0f) != 0x43803f80u) throw gptq::error("narrow_pair<bfloat16>");
        if (ctx.fma_pairs<half>(pair(3.0f, 2048.0f), pair(2.0f, 1.0f), pair(-1.0f, 1.0f)) != pair(5.0f, 2048.0f))
            throw gptq::error("fma_pairs");
        // 1 + 2^-10 + 2^-11 - 2^-31 is nearer to the half below; by way of a float it would be half way between two.
        const float odd = 1.0f + 0x1p-10f;
        if (ctx.fma_pairs<half>(pair(0x1p-6f * odd, 0.0f), pair(0x1p-5f * (1.0f - 0x1p-10f), 0.0f), pair(odd, 0.0f)) !=
            pair(odd, 0.0f))
            throw gptq::error("fma_pairs rounds twice");
        if (ctx.widen(half{0x3555}) != gptq::to_float(half{0x3555})) throw gptq::error("widen");
    });
}

TEST_CASE("a broken rule is an error at the launch that says where") {
    const auto fails = [](const launch_shape& shape, const auto& body, const std::string& message) {
        CHECK_THROWS_WITH(host_launch(shape, body), Contains(message));
    };
    const line source{};
    fails(
        {2, 64, 0},
        [](host_context& ctx) {
            if (ctx.block() == 1 && ctx.thread() == 40) throw gptq::error("no");
        },
        "block 1, thread 40: no");
    fails(
        {1, 32, 64}, [](host_context& ctx) { ctx.shared<float>(0, 17); }, "17 elements of 4 bytes at 0 of 64");
    fails(
        {1, 32, 64}, [](host_context& ctx) { ctx.shared<float>(2, 1); }, "at 2 of 64");
    fails(
        {1, 32, 64}, [](host_context& ctx) { ctx.shared<float>(0, 16)[16] = 0.0f; }, "element 16 of 16");
    fails(
        {1, 32, 64}, [](host_context& ctx) { ctx.shared<float>(0, 16) + 17; }, "element 17 of 16");
    fails(
        {1, 32, 64}, [&](host_context& ctx) { ctx.copy_async<16>(ctx.shared<float>(4, 8), &source, 16); },
        "not a multiple of 16");
    fails(
        {1, 32, 64}, [&](host_context& ctx) { ctx.copy_async<16>(ctx.shared<float>(0, 3), &source, 16); },
        "element 0 of 3");
    fails(
        {1, 32, 64}, [&](host_context& ctx) { ctx.copy_async<16>(ctx.shared<float>(0, 4), &source.words[1], 16); },
        "not at a multiple of 16");
    fails(
        {1, 32, 64},
        [&](host_context& ctx) {
            ctx.copy_async<16>(ctx.shared<float>(0, 4), &source, ctx.lane() == 0 ? 16 : 0);
            ctx.commit_copies();
        },
        "returned before a copy");
    fails(
        {1, 32, 0},
        [](host_context& ctx) {
            if (ctx.lane() != 3) ctx.shuffle(1.0f, 0);
        },
        "shuffle: lane 3 does not take part");
    fails(
        {1, 32, 0}, [](host_context& ctx) { ctx.shuffle(1.0f, 32); }, "lane 32");
    fails(
        {1, 64, 0}, [](host_context& ctx) { ctx.lane() == 3 ? ctx.barrier() : ctx.warp_barrier(); },
        "threads wait here that others, which wait elsewhere, do not reach");
}

TEST_CASE("launches that no device accepts are refused") {
    const auto nothing = [](host_context&) {};
    CHECK_THROWS_AS(host_launch({0, 32, 0}, nothing), gptq::shape_error);
    CHECK_THROWS_AS(host_launch({1, 33, 0}, nothing), gptq::shape_error);
    CHECK_THROWS_AS(host_launch({1, 2048, 0}, nothing), gptq::shape_error);
    CHECK_THROWS_AS(host_launch({1, 32, 100 * 1024}, nothing), gptq::shape_error);
}
