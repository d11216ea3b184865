// Communicators: held to their sentences, broken ones found, and ranks that stop.
#include <cstddef>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include <gptq/communicator.hpp>
#include <gptq/error.hpp>
#include <gptq/messages.hpp>
#include <gptq/testing/check_communicator.hpp>
#include <gptq/thread_ranks.hpp>

#include "support/catch.hpp"
#include "support/message.hpp"
#include "support/threads.hpp"

using gptq_test::message_of;
using gptq_test::on_ranks;

static_assert(gptq::Communicator<gptq::single_process>);
static_assert(gptq::Communicator<gptq::thread_ranks::communicator>);
static_assert(gptq::Communicator<gptq::communicator_ref>);

namespace {

/// Adds from the last rank to the first.
struct backward_sums : gptq::thread_ranks::communicator {
    using communicator::communicator;
    void sum(std::span<float> numbers) {
        const gptq::rank_messages given = exchange(std::as_bytes(numbers));
        for (std::size_t i = 0; i < numbers.size(); ++i) {
            numbers[i] = 0.0f;
            for (std::size_t r = given.size(); r-- > 0;) numbers[i] += gptq::numbers_in<float>(given[r])[i];
        }
    }
};

/// Gives what was given in another order.
struct turned_messages : gptq::thread_ranks::communicator {
    using communicator::communicator;
    gptq::rank_messages exchange(std::span<const std::byte> bytes) {
        gptq::rank_messages given = communicator::exchange(bytes);
        std::swap(given.front(), given.back());
        return given;
    }
};

/// What check_communicator finds on each of `size` ranks.
template <class C>
std::vector<gptq::testing::violations> found_on_ranks(std::size_t size) {
    std::vector<gptq::testing::violations> found(size);
    gptq::thread_ranks all(size);
    on_ranks(size, [&](std::size_t rank) {
        C ranks(all, rank);
        found[rank] = gptq::testing::check_communicator(ranks);
    });
    return found;
}

}  // namespace

TEST_CASE("one process and threads keep every sentence of Communicator", "[communicator]") {
    gptq::single_process alone;
    CHECK(gptq::testing::check_communicator(alone) == gptq::testing::violations());
    gptq::communicator_ref nobody;
    CHECK(gptq::testing::check_communicator(nobody) == gptq::testing::violations());
    for (const std::size_t size : {1u, 2u, 3u, 5u})
        for (const auto& found : found_on_ranks<gptq::thread_ranks::communicator>(size))
            CHECK(found == gptq::testing::violations());
    CHECK_THROWS_AS(gptq::thread_ranks(0), gptq::option_error);
}

TEST_CASE("the check finds sums in another order, and messages of other ranks", "[communicator]") {
    for (const auto& found : found_on_ranks<backward_sums>(3)) {
        REQUIRE(found.size() == 1);
        CHECK(found.front().starts_with("Communicator 4"));
    }
    for (const auto& found : found_on_ranks<turned_messages>(2)) {
        REQUIRE_FALSE(found.empty());
        CHECK(found.front().starts_with("Communicator 3"));
    }
}

TEST_CASE("a rank that stops wakes the others, which say which and why", "[communicator]") {
    gptq::thread_ranks all(3);
    std::vector<std::string> said(3);
    on_ranks(3, [&](std::size_t rank) {
        auto ranks = all.of(rank);
        ranks.exchange({});
        if (rank == 1) return ranks.fail("the disk is full");
        said[rank] = message_of([&] { ranks.exchange({}); });
    });
    CHECK(said[0] == "rank 1 has stopped: the disk is full");
    CHECK(said[2] == said[0]);
    auto late = all.of(0);
    std::vector<float> numbers(3);
    CHECK_THROWS_AS(late.sum(numbers), gptq::communication_error);
}

TEST_CASE("messages are read as they were written, and not beyond their end", "[communicator]") {
    gptq::message_writer to;
    to.put(7.5);
    to.put_list(std::span<const int>(std::vector{1, 2, 3}));
    to.put_text("rank");
    gptq::message_reader from(to.bytes());
    CHECK(from.get<double>() == 7.5);
    CHECK(from.get_list<int>() == std::vector{1, 2, 3});
    CHECK(from.get_text() == "rank");
    CHECK_THROWS_AS(from.get<char>(), gptq::format_error);
    gptq::message_reader cut(to.bytes().first(12));
    cut.get<double>();
    CHECK_THROWS_AS(cut.get_list<int>(), gptq::format_error);
    gptq::message_writer lying;
    lying.put(~std::uint64_t{0});
    CHECK_THROWS_AS(gptq::message_reader(lying.bytes()).get_list<double>(), gptq::format_error);
}
