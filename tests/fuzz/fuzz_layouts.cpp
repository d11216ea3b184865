// The tensors of a quantized layer in every layout, with shapes that lie: what is accepted is a layer whose codes, zero
// points and groups are in range, and packs to the same words again.
#include <algorithm>

#include <gptq/layouts/awq.hpp>
#include <gptq/layouts/compressed_tensors.hpp>
#include <gptq/layouts/gptq.hpp>
#include <gptq/xtensor/pack.hpp>

#include "fuzz.hpp"

namespace {

/// Numbers from the input, 0 where it has ended.
class numbers {
 public:
    explicit numbers(std::string_view rest) : rest_(rest) {}

    std::size_t byte() {
        if (rest_.empty()) return 0;
        const auto value = static_cast<unsigned char>(rest_.front());
        rest_.remove_prefix(1);
        return value;
    }
    std::uint32_t word() {
        std::uint32_t value = 0;
        for (int i = 0; i < 4; ++i) value = value << 8 | static_cast<std::uint32_t>(byte());
        return value;
    }
    /// Up to 15 by 31: words for whole layers of the smallest extents.
    template <class T, class Make>
    gptq::tensor2<T> matrix(const Make& make) {
        auto values = gptq::make_tensor2<T>(byte() % 16, byte() % 32);
        std::generate_n(values.data(), values.size(), make);
        return values;
    }

 private:
    std::string_view rest_;
};

template <class Layout>
void read(const gptq::packed_layer& given) {
    const auto layer = gptq::unpack<Layout>(given);
    const auto codes = 1u << layer.bits;
    for (std::size_t i = 0; i < layer.codes.size(); ++i)
        gptq_fuzz::require(layer.codes.data()[i] < codes, "a code out of range");
    for (const auto group : layer.g_idx)
        gptq_fuzz::require(group >= 0 && static_cast<std::size_t>(group) < layer.groups(), "a group out of range");
    const auto again = gptq::pack<Layout>(layer);
    gptq_fuzz::require(again.qweight == given.qweight, "codes change when they are packed again");
}

}  // namespace

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    numbers next(gptq_fuzz::text_of(data, size));
    const std::size_t layout = next.byte();
    gptq::packed_layer given;
    given.bits = static_cast<int>(next.byte() % 10);
    given.sym = next.byte() % 2 == 0;
    given.out_features = next.byte() % 4 * 8 + next.byte() / 128;
    given.in_features = next.byte() % 4 * 32 + next.byte() / 128;
    given.group_features = next.byte() % 70;
    given.qweight = next.matrix<std::int32_t>([&] { return static_cast<std::int32_t>(next.word()); });
    given.qzeros = next.matrix<std::int32_t>([&] { return static_cast<std::int32_t>(next.word()); });
    given.scales = next.matrix<gptq::half>([&] { return gptq::half{static_cast<std::uint16_t>(next.word())}; });
    given.g_idx = gptq::make_tensor1<std::int32_t>(next.byte());
    for (auto& group : given.g_idx) group = static_cast<std::int32_t>(next.byte()) - 2;
    gptq_fuzz::survives([&] {
        switch (layout % 4) {
            case 0: return read<gptq::layout::gptq_v1>(given);
            case 1: return read<gptq::layout::gptq_v2>(given);
            case 2: return read<gptq::layout::awq>(given);
            default: return read<gptq::layout::compressed_tensors>(given);
        }
    });
    return 0;
}
