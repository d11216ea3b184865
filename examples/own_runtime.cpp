// A runtime of one's own on the folder of a model: several prompts at once, beams that are forks of a cache, and a small
// model that guesses ahead for a large one, whose cache is rolled back where the guess was wrong.
//
//     own_runtime FOLDER
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <iostream>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <gptq/model.hpp>

#include "check.hpp"

namespace model = gptq::model;
using token = std::int32_t;
using text = std::vector<token>;

/// The most likely token after these logits.
token best(std::span<const float> logits) {
    return static_cast<token>(std::max_element(logits.begin(), logits.end()) - logits.begin());
}

/// Row r of [tokens, vocabulary].
std::span<const float> row(const gptq::tensor2<float>& logits, std::size_t r) { return gptq::view_of(logits).row(r); }

/// `count` more tokens of a text, one after the other.
text greedy(const model::decoder& decoder, text so_far, std::size_t count) {
    model::kv_cache cache(decoder.config(), so_far.size() + count);
    for (const std::size_t end = so_far.size() + count; so_far.size() < end;) {
        const auto logits = decoder.append(std::span(so_far).subspan(cache.length()), cache);
        so_far.push_back(best({logits.data(), logits.size()}));
    }
    return so_far;
}

// --- several prompts at once -----------------------------------------------------------------------------------------

/// The same for several texts. A step reads the weights once for all of them.
std::vector<text> greedy_together(const model::decoder& decoder, std::vector<text> texts, std::size_t count) {
    std::vector<model::kv_cache> caches;
    for (const text& t : texts) caches.emplace_back(decoder.config(), t.size() + count);
    for (std::size_t step = 0; step < count; ++step) {
        std::vector<model::continuation> next;
        for (std::size_t i = 0; i < texts.size(); ++i)
            next.push_back({std::span(texts[i]).subspan(caches[i].length()), &caches[i]});
        const auto logits = decoder.append(next);  // [texts, vocabulary]
        for (std::size_t i = 0; i < texts.size(); ++i) texts[i].push_back(best(row(logits, i)));
    }
    return texts;
}

// --- beams -----------------------------------------------------------------------------------------------------------

struct beam {
    text so_far;
    double log_probability = 0.0;
    model::kv_cache cache;
};

/// -log p of a token after these logits.
double cost(std::span<const float> logits, token t) {
    return model::negative_log_likelihood(logits, static_cast<std::size_t>(t));
}

struct candidate {
    std::size_t of = 0;  // a beam
    token next = 0;
    double log_probability = 0.0;
};

/// The `width` best ways to go on with one token more.
std::vector<candidate> best_candidates(const std::vector<beam>& beams, const gptq::tensor2<float>& logits,
                                       std::size_t width) {
    std::vector<candidate> all;
    for (std::size_t i = 0; i < beams.size(); ++i)
        for (std::size_t t = 0; t < row(logits, i).size(); ++t) {
            const auto next = static_cast<token>(t);
            all.push_back({i, next, beams[i].log_probability - cost(row(logits, i), next)});
        }
    const auto kept = all.begin() + static_cast<std::ptrdiff_t>(width);
    std::partial_sort(all.begin(), kept, all.end(),
                      [](const candidate& a, const candidate& b) { return a.log_probability > b.log_probability; });
    all.erase(kept, all.end());
    return all;
}

/// The most likely continuation that `width` beams find.
beam search(const model::decoder& decoder, const text& prompt, std::size_t count, std::size_t width) {
    std::vector<beam> beams;
    beams.push_back({prompt, 0.0, model::kv_cache(decoder.config(), prompt.size() + count)});
    for (std::size_t step = 0; step < count; ++step) {
        std::vector<model::continuation> next;
        for (beam& b : beams) next.push_back({std::span(b.so_far).subspan(b.cache.length()), &b.cache});
        const auto logits = decoder.append(next);
        std::vector<beam> forked;
        for (const candidate& c : best_candidates(beams, logits, width)) {
            forked.push_back({beams[c.of].so_far, c.log_probability, beams[c.of].cache.fork()});
            forked.back().so_far.push_back(c.next);
        }
        beams = std::move(forked);
    }
    return std::move(beams.front());
}

// --- guessing ahead --------------------------------------------------------------------------------------------------

struct guessed {
    text so_far;
    std::size_t steps = 0;  // of the large model
};

/// The text of greedy(), in fewer steps: `draft` guesses `ahead` tokens, `decoder` reads all of them at once, and what it
/// would not have said is taken back.
guessed greedy_ahead(const model::decoder& decoder, const model::decoder& draft, text so_far, std::size_t count,
                     std::size_t ahead) {
    const std::size_t end = so_far.size() + count;
    model::kv_cache cache(decoder.config(), end + ahead), draft_cache(draft.config(), end + ahead);
    std::size_t steps = 0;
    for (; so_far.size() < end; ++steps) {
        text guess = so_far;
        for (std::size_t i = 0; i < ahead; ++i) {
            const auto logits = draft.append(std::span(guess).subspan(draft_cache.length()), draft_cache);
            guess.push_back(best({logits.data(), logits.size()}));
        }
        const std::size_t read = cache.length();
        const model::continuation step{std::span(guess).subspan(read), &cache};
        const auto logits = decoder.append_each({&step, 1});  // row i: after guess[read + i]
        do {
            so_far.push_back(best(row(logits, so_far.size() - 1 - read)));
        } while (so_far.size() <= guess.size() && so_far.back() == guess[so_far.size() - 1]);
        // All but the last token of the text may stay read.
        cache.truncate(so_far.size() - 1);
        draft_cache.truncate(std::min(draft_cache.length(), so_far.size() - 1));
    }
    so_far.resize(end);
    return {std::move(so_far), steps};
}

/// The model with its layers rounded to nearest in 4 bits.
model::decoder rounded(const gptq::io::model_folder& folder, const text& some_tokens) {
    using w4 = gptq::scheme<4, gptq::group_size<32>, gptq::asymmetric>;
    const auto round = [](const std::string&, auto W, const auto&) {
        return model::made_layer(gptq::quantized_layer(gptq::round_to_nearest<w4>(W)));
    };
    return model::quantize_in_memory(folder, {some_tokens, some_tokens.size()}, round);
}

int main(int argc, char** argv) {
    check(argc == 2, "one argument, the folder of a model");
    const gptq::io::model_folder folder(argv[1]);
    const auto tokenizer = model::tokenizer::load(folder.path());
    const auto decoder = model::decoder::load(folder);
    constexpr std::size_t count = 24;
    std::vector<text> prompts;
    for (const char* prompt : {"Today, the wolves", "Map: Rasford. It lies on", "Once, many blue kings"})
        prompts.push_back(tokenizer.encode_whole(prompt));

    const std::vector<text> together = greedy_together(decoder, prompts, count);
    for (std::size_t i = 0; i < prompts.size(); ++i) {
        std::cout << tokenizer.decode(together[i]) << '\n';
        check(together[i] == greedy(decoder, prompts[i], count), "texts read together are those read alone");
    }

    const beam found = search(decoder, prompts[0], count, 4), plain = search(decoder, prompts[0], count, 1);
    std::cout << "4 beams: " << tokenizer.decode(found.so_far) << " (log probability " << found.log_probability
              << ", greedy " << plain.log_probability << ")\n";
    check(plain.so_far == together[0], "one beam is the greedy text");
    check(found.log_probability >= plain.log_probability, "beams find a text that is at least as likely");

    const guessed quick = greedy_ahead(decoder, rounded(folder, prompts[1]), prompts[1], count, 4);
    std::cout << count << " tokens in " << quick.steps << " steps\n";
    check(quick.so_far == together[1], "guessing ahead gives the greedy text");
    check(quick.steps < count / 2, "in fewer steps");
}
