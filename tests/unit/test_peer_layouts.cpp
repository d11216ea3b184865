// Checkpoints that GPTQModel wrote: unpacked and packed again, every word of theirs is ours.
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <string>

#include <gptq/io/safetensors.hpp>
#include <gptq/layouts/gptq.hpp>
#include <gptq/xtensor/pack.hpp>

#include "support/catch.hpp"
#include "support/shared.hpp"

namespace {

using gptq::layout::gptq_v1;

template <class T>
gptq::tensor2<T> read2(const gptq::io::safetensors_file& file, const std::string& name) {
    const auto* info = file.find(name);
    REQUIRE(info != nullptr);
    auto m = gptq::make_tensor2<T>(info->shape.at(0), info->shape.at(1));
    REQUIRE(m.size() * sizeof(T) == info->bytes.size());
    info->bytes.read(std::as_writable_bytes(std::span(m.data(), m.size())));
    return m;
}

gptq::packed_layer read_layer(const gptq::io::safetensors_file& file, const std::string& module, int bits,
                              std::size_t group_features) {
    gptq::packed_layer t;
    t.bits = bits;
    t.qweight = read2<std::int32_t>(file, module + ".qweight");
    t.qzeros = read2<std::int32_t>(file, module + ".qzeros");
    t.scales = read2<gptq::half>(file, module + ".scales");
    const auto* g_idx = file.find(module + ".g_idx");
    REQUIRE(g_idx != nullptr);
    t.out_features = t.qweight.shape()[1];
    t.in_features = t.qweight.shape()[0] * 32 / static_cast<std::size_t>(bits);
    t.group_features = std::min(group_features, t.in_features);
    t.g_idx = gptq::make_tensor1<std::int32_t>(g_idx->shape.at(0));
    g_idx->bytes.read(std::as_writable_bytes(std::span(t.g_idx.data(), t.g_idx.size())));
    return t;
}

}  // namespace

TEST_CASE("GPTQModel's words survive unpacking and packing") {
    const auto shared = gptq_test::shared_dir();
    if (!shared) {
        WARN("skipped: the checkpoints of GPTQModel are not here");
        return;
    }
    struct checkpoint {
        const char* folder;
        int bits;
        std::size_t group_features;
        bool plain_groups;
    };
    constexpr std::size_t whole_row = 1u << 20;
    for (const auto& c : {checkpoint{"gptqmodel-w3g32", 3, 32, true},
                          {"gptqmodel-w4g128", 4, 128, true},
                          {"gptqmodel-w4g32act", 4, 32, false},
                          {"gptqmodel-w8pc", 8, whole_row, true}}) {
        INFO(c.folder);
        const gptq::io::safetensors_file file(*shared / "data" / "peers" / c.folder / "model.safetensors");
        std::size_t modules = 0;
        bool plain_groups = true;
        for (const auto& tensor : file.tensors()) {
            const auto suffix = tensor.name.rfind(".qweight");
            if (suffix == std::string::npos) continue;
            ++modules;
            const auto theirs = read_layer(file, tensor.name.substr(0, suffix), c.bits, c.group_features);
            const auto layer = gptq::unpack<gptq_v1>(theirs);
            const auto ours = gptq::pack<gptq_v1>(layer);
            CHECK(layer.sym);
            CHECK(ours.qweight == theirs.qweight);
            CHECK(ours.qzeros == theirs.qzeros);
            CHECK(ours.scales == theirs.scales);
            CHECK(ours.g_idx == theirs.g_idx);
            for (std::size_t k = 0; k < layer.in_features(); ++k)
                plain_groups = plain_groups && static_cast<std::size_t>(layer.g_idx(k)) == k / layer.group_features;
        }
        CHECK(modules % 7 == 0);  // q, k, v, o, gate, up and down of every block
        CHECK(modules > 0);
        CHECK(plain_groups == c.plain_groups);
    }
}
