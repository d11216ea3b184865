// Whole models pruned: the pattern holds, everything else stays, and the layers' outputs change less than by magnitude.
#include <gptq/model/prune_model.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <set>
#include <string>
#include <vector>

#include <gptq/io/model_folder.hpp>
#include <gptq/model/decoder.hpp>

#include "support/catch.hpp"
#include "support/golden_models.hpp"
#include "support/temp_dir.hpp"

namespace io = gptq::io;
namespace model = gptq::model;
using gptq::sparsity_pattern;

namespace {

/// Windows of 32 tokens of a vocabulary of 64.
model::token_windows some_windows() {
    model::token_windows windows{{}, 32};
    for (int i = 0; i < 32 * 8; ++i) windows.tokens.push_back(static_cast<std::int32_t>((i * i + 3 * i) % 64));
    return windows;
}

struct sums {
    double error = 0.0, by_magnitude = 0.0;
};
sums sums_of(const model::prune_result& result) {
    sums all;
    for (const auto& m : result.modules) {
        all.error += m.error;
        all.by_magnitude += m.rtn_error;
    }
    return all;
}

/// Whether no four neighbours have more than two numbers other than 0.
bool has_pattern(const gptq::tensor2<float>& W) {
    for (std::size_t i = 0; i < W.size(); i += 4)
        if (std::count(W.data() + i, W.data() + i + 4, 0.0f) < 2) return false;
    return true;
}

}  // namespace

TEST_CASE("a model with 2 of 4 weights: linear layers have the pattern, all else is as it was") {
    for (const std::string name : {"llama", "qwen2", "opt", "phi3", "mixtral"}) {
        CAPTURE(name);
        const gptq_test::golden_model golden(name);
        const io::model_folder source(golden.folder);
        const gptq_test::temp_dir dir;
        const auto out = dir.path() / "pruned";
        const auto result =
            model::prune_model(source, out, some_windows(), {.pattern = sparsity_pattern::structured(2, 4)});
        const io::model_folder pruned(out);
        std::set<std::string> modules;
        for (const auto& m : result.modules) modules.insert(m.module + ".weight");
        CHECK(modules.size() == result.modules.size());
        CHECK(pruned.tensor_names() == source.tensor_names());
        for (const std::string& tensor : source.tensor_names()) {
            CAPTURE(tensor);
            const auto &a = source.tensor(tensor), &b = pruned.tensor(tensor);
            CHECK(a.dtype == b.dtype);
            CHECK(a.shape == b.shape);
            if (modules.count(tensor) != 0)
                CHECK(has_pattern(pruned.read_matrix(tensor)));
            else
                CHECK(std::equal(a.bytes.begin(), a.bytes.end(), b.bytes.begin(), b.bytes.end()));
        }
        CHECK(result.zeros >= 0.5);
        CHECK(result.zeros < 0.52);
        const sums all = sums_of(result);
        CHECK(all.error > 0.0);
        CHECK(all.error < all.by_magnitude);
        CHECK_NOTHROW(model::decoder::load(pruned));
    }
}

TEST_CASE("a share of the weights, and the baseline by magnitude") {
    const gptq_test::golden_model golden("llama");
    const io::model_folder source(golden.folder);
    const gptq_test::temp_dir dir;
    const auto half = model::prune_model(source, dir.path() / "half", some_windows(),
                                         {.pattern = sparsity_pattern::unstructured(0.5)});
    CHECK(half.zeros == Approx(0.5).margin(0.01));
    CHECK(sums_of(half).error < sums_of(half).by_magnitude);
    const auto by_size = model::prune_model(source, dir.path() / "by_size", some_windows(),
                                            {.pattern = sparsity_pattern::unstructured(0.5), .by_magnitude = true});
    CHECK(sums_of(by_size).error == sums_of(by_size).by_magnitude);
    CHECK(by_size.zeros == Approx(0.5).margin(0.01));
}

TEST_CASE("what cannot be pruned is refused, and nothing is written") {
    const gptq_test::golden_model golden("llama");
    const io::model_folder source(golden.folder);
    const gptq_test::temp_dir dir;
    const auto out = dir.path() / "out";
    CHECK_THROWS_AS(model::prune_model(source, out, some_windows(), {.pattern = sparsity_pattern::structured(3, 7)}),
                    gptq::option_error);
    CHECK_THROWS_AS(model::prune_model(source, out, {{1, 2, 3}, 2}, {.pattern = sparsity_pattern::unstructured(0.5)}),
                    gptq::shape_error);
    CHECK(std::filesystem::is_empty(dir.path()));
}
