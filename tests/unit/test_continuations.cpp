// Several texts in one step, and caches that are forked and cut: each gives what a text of its own gives.
#include <gptq/model/decoder.hpp>

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "support/catch.hpp"
#include "support/golden_models.hpp"
#include "support/message.hpp"

using gptq::model::continuation;
using gptq::model::decoder;
using gptq::model::kv_cache;
using gptq_test::mentions;
using gptq_test::message_of;
using gptq_test::relative_difference;

namespace {

using ids = std::vector<std::int32_t>;

struct scene {
    gptq_test::golden_model golden;
    decoder model;
    ids text;

    explicit scene(const std::string& name)
        : golden(name), model(decoder::load(gptq::io::model_folder(golden.folder))), text(golden.logit_ids()) {}
    kv_cache cache(std::size_t capacity = 32) const { return {model.config(), capacity}; }

    /// The logits after the last token of a text that is read alone and at once.
    std::vector<double> after(const ids& read) const {
        const auto logits = model.logits(read);
        const auto last = gptq::view_of(logits).row(read.size() - 1);
        return {last.begin(), last.end()};
    }
};

ids part(const ids& all, std::size_t first, std::size_t count) {
    const auto begin = all.begin() + static_cast<std::ptrdiff_t>(first);
    return {begin, begin + static_cast<std::ptrdiff_t>(count)};
}

ids joined(ids a, const ids& b) {
    a.insert(a.end(), b.begin(), b.end());
    return a;
}

constexpr double rounding = 2e-5;

}  // namespace

TEST_CASE("texts that are read together give the logits that each gives alone", "[decoder]") {
    for (const auto& name : gptq_test::golden_model_names) {
        const scene s(name);
        INFO(name);
        // Of different lengths, and with different numbers of tokens in a step.
        const std::vector<ids> begin{part(s.text, 0, 3), part(s.text, 2, 6), part(s.text, 1, 1)};
        const std::vector<ids> next{part(s.text, 5, 1), part(s.text, 0, 4), part(s.text, 3, 2)};
        std::vector<kv_cache> caches;
        for (std::size_t i = 0; i < 3; ++i) caches.push_back(s.cache());
        const auto step = [&](const std::vector<ids>& tokens) {
            std::vector<continuation> texts;
            for (std::size_t i = 0; i < 3; ++i) texts.push_back({tokens[i], &caches[i]});
            return texts;
        };
        const auto first = s.model.append(step(begin));
        const auto each = s.model.append_each(step(next));
        REQUIRE(first.shape()[0] == 3);
        REQUIRE(each.shape()[0] == 7);
        std::size_t row = 0;
        for (std::size_t i = 0; i < 3; ++i) {
            CHECK(relative_difference(gptq::view_of(first).row(i), s.after(begin[i])) < rounding);
            for (std::size_t n = 1; n <= next[i].size(); ++n)
                CHECK(relative_difference(gptq::view_of(each).row(row++),
                                          s.after(joined(begin[i], part(next[i], 0, n)))) < rounding);
            CHECK(caches[i].length() == begin[i].size() + next[i].size());
        }
    }
}

TEST_CASE("each text of a step rotates by its own length", "[decoder]") {
    const scene s("phi3-longrope");  // whose original context has 13 tokens
    const ids longer = part(s.text, 0, 12), shorter = part(s.text, 4, 3), next = part(s.text, 12, 4);
    kv_cache first = s.cache(), second = s.cache();
    s.model.append(std::vector<continuation>{{longer, &first}, {shorter, &second}});
    const auto both = s.model.append(std::vector<continuation>{{next, &first}, {next, &second}});
    CHECK(relative_difference(gptq::view_of(both).row(0), s.after(joined(longer, next))) < rounding);
    CHECK(relative_difference(gptq::view_of(both).row(1), s.after(joined(shorter, next))) < rounding);
    CHECK(first.length() == 16);
}

TEST_CASE("a text that was cut goes on as a fresh one", "[decoder]") {
    for (const auto& name : {"llama", "mistral", "gemma3", "opt", "phi3-longrope"}) {
        const scene s(name);
        kv_cache cache = s.cache(), fresh = s.cache();
        s.model.append(s.text, cache);
        cache.truncate(4);
        CHECK(cache.length() == 4);
        s.model.append(part(s.text, 0, 4), fresh);
        const ids other = part(s.text, 1, 1);
        const auto got = s.model.append(other, cache), expected = s.model.append(other, fresh);
        INFO(name);
        CHECK(relative_difference({got.data(), got.size()}, {expected.begin(), expected.end()}) < rounding);
        CHECK_THROWS_AS(cache.truncate(6), gptq::shape_error);
        cache.truncate(0);
        const auto anew = s.model.append(s.text, cache);
        CHECK(relative_difference({anew.data(), anew.size()}, s.after(s.text)) < rounding);
    }
}

TEST_CASE("a fork goes on by itself", "[decoder]") {
    const scene s("llama");
    kv_cache cache = s.cache();
    const ids start = part(s.text, 0, 5);
    s.model.append(start, cache);
    kv_cache fork = cache.fork();
    const ids one{7}, two{9, 8};
    const auto both = s.model.append(std::vector<continuation>{{one, &cache}, {two, &fork}});
    CHECK(relative_difference(gptq::view_of(both).row(0), s.after(joined(start, one))) < rounding);
    CHECK(relative_difference(gptq::view_of(both).row(1), s.after(joined(start, two))) < rounding);
    CHECK(fork.capacity() == cache.capacity());
}

TEST_CASE("steps that cannot be taken are refused, and leave the caches alone", "[decoder]") {
    const scene s("llama");
    kv_cache wide = s.cache(), narrow = s.cache(2);
    const ids some = part(s.text, 0, 3);
    const auto refused = [&](const std::vector<continuation>& texts) {
        return message_of([&] { s.model.append(texts); });
    };
    CHECK(mentions(refused({{some, &wide}, {some, &wide}}), "same cache"));
    CHECK(mentions(refused({{some, &wide}, {some, &narrow}}), "holds 2 tokens"));
    CHECK(mentions(refused({{some, &wide}, {{}, &narrow}}), "no tokens"));
    CHECK(mentions(refused({{some, &wide}, {some, nullptr}}), "no cache"));
    CHECK(mentions(refused({}), "no texts"));
    CHECK(wide.length() == 0);
}
