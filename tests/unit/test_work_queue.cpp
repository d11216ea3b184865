// What is done beside the caller: its order, its bound, and what becomes of failures.
#include <atomic>
#include <chrono>
#include <cstddef>
#include <stdexcept>
#include <thread>
#include <vector>

#include <gptq/model/work_queue.hpp>

#include "support/catch.hpp"

using gptq::model::work_queue;

TEST_CASE("pieces of work are done in their order, by the caller or beside it") {
    for (const std::size_t most : {std::size_t{0}, std::size_t{1}, std::size_t{4}}) {
        std::vector<int> done;
        work_queue queue(most);
        for (int i = 0; i < 20; ++i) queue.add([&done, i] { done.push_back(i); });
        queue.finish();
        REQUIRE(done.size() == 20);
        for (int i = 0; i < 20; ++i) CHECK(done[static_cast<std::size_t>(i)] == i);
    }
}

TEST_CASE("no more pieces wait than may") {
    std::atomic<bool> go = false;
    std::atomic<int> added = 0;
    work_queue queue(2);
    std::thread adding([&] {
        for (int i = 0; i < 6; ++i) {
            queue.add([&] {
                while (!go) std::this_thread::yield();
            });
            ++added;
        }
    });
    while (added < 3) std::this_thread::yield();  // one is being done, two wait
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    CHECK(added == 3);
    go = true;
    adding.join();
    queue.finish();
    CHECK(added == 6);
}

TEST_CASE("a piece that throws ends the queue, and whoever goes on hears of it") {
    std::atomic<int> after = 0;
    work_queue queue(8);
    queue.add([] { throw std::runtime_error("full"); });
    const auto add_until_it_throws = [&] {
        while (true) queue.add([&after] { ++after; });
    };
    CHECK_THROWS_WITH(add_until_it_throws(), "full");
    CHECK_THROWS_WITH(queue.finish(), "full");
    CHECK(after == 0);
    work_queue at_once(0);
    CHECK_THROWS_WITH(at_once.add([] { throw std::runtime_error("full"); }), "full");
}
