#include "support/golden_models.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <fstream>

#include "support/shared.hpp"

namespace gptq_test {

nlohmann::json read_json(const std::filesystem::path& path) {
    std::ifstream file(path);
    return nlohmann::json::parse(file);
}

golden_model::golden_model(const std::string& name)
    : folder(source_dir() / "tests" / "golden" / "models" / name), expected(read_json(folder / "expected.json")) {}

std::vector<std::int32_t> golden_model::input_ids() const {
    return expected["input_ids"].get<std::vector<std::int32_t>>();
}

std::vector<std::int32_t> golden_model::logit_ids() const {
    auto ids = input_ids();
    ids.resize(expected["logits_of"].get<std::size_t>());
    return ids;
}

double relative_difference(std::span<const float> values, const std::vector<double>& expected) {
    double largest = 0.0;
    double difference = values.size() == expected.size() ? 0.0 : INFINITY;
    for (std::size_t i = 0; i < values.size() && i < expected.size(); ++i) {
        const double d = std::abs(static_cast<double>(values[i]) - expected[i]);
        if (!(d <= difference)) difference = d;
        largest = std::max(largest, std::abs(expected[i]));
    }
    return difference / largest;
}

}  // namespace gptq_test
