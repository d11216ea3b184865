// Layers of the formats of compressed-tensors whose codes are numbers by themselves: every byte against the definition
// of the format, and files that lie.
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <map>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include <gptq/io/folder_writer.hpp>
#include <gptq/io/model_folder.hpp>
#include <gptq/io/quantization_config.hpp>
#include <gptq/io/quantized_tensors.hpp>
#include <gptq/layouts/compressed_elements.hpp>
#include <gptq/xtensor/adapt.hpp>
#include <gptq/xtensor/surface.hpp>

#include "support/catch.hpp"
#include "support/files.hpp"
#include "support/message.hpp"
#include "support/temp_dir.hpp"

namespace {

namespace io = gptq::io;
using format = io::checkpoint_format;
using gptq_test::contains;
using gptq_test::message_of;
using json = nlohmann::ordered_json;

/// The tensors of one layer: dtype, shape, bytes.
struct tensor {
    std::string type;
    std::vector<std::size_t> shape;
    std::string bytes;
};
using tensors = std::map<std::string, tensor>;

tensors written(format f, const gptq::quantized_layer& q) {
    tensors all;
    io::write_quantized(
        [&](std::string_view name, io::dtype type, std::span<const std::size_t> shape,
            std::span<const std::byte> bytes) {
            all[std::string(name)] = {std::string(io::dtype_name(type)),
                                      {shape.begin(), shape.end()},
                                      {reinterpret_cast<const char*>(bytes.data()), bytes.size()}};
        },
        f, "m", q);
    return all;
}

io::quantization_config config_of(format f) {
    io::quantization_config config;
    config.format = f;
    io::visit_layout(f, [&]<class L>() {
        if constexpr (gptq::layout::holds_elements<L>)
            config.settings.bits = L::bits, config.settings.group_size = L::group_size;
    });
    return config;
}

gptq::quantized_layer read(const tensors& all, const io::quantization_config& config) {
    json header = json::object();
    std::string data;
    for (const auto& [name, t] : all) {
        header[name] = {
            {"dtype", t.type}, {"shape", t.shape}, {"data_offsets", {data.size(), data.size() + t.bytes.size()}}};
        data += t.bytes;
    }
    const gptq_test::temp_dir dir;
    gptq_test::write_file(dir.path() / "model.safetensors", gptq_test::safetensors_bytes(header.dump(), data));
    gptq_test::write_file(dir.path() / "config.json", "{}");
    const io::model_folder folder(dir.path());
    CHECK(io::is_quantized(folder, "m"));
    CHECK(io::quantized_modules(folder).contains("m"));
    return io::read_quantized(folder, config, "m");
}

/// A layer that the format holds, of every code.
template <class L>
gptq::quantized_layer layer_of(std::size_t N, std::size_t K) {
    gptq::quantized_layer q;
    gptq::allocate(q, L::bits, !gptq::layout::has_grid<L>, N, K,
                   L::group_size == -1 ? K : static_cast<std::size_t>(L::group_size));
    q.levels = gptq::layout::levels_in_files<L>();
    std::mt19937 random(7);
    for (auto& code : q.codes) code = static_cast<std::uint8_t>(random() & ((1u << L::bits) - 1));
    for (auto& zero : q.zeros) zero = gptq::layout::has_grid<L> ? 0 : 128;
    for (auto& scale : q.scales) scale = std::ldexp(1.0f, -static_cast<int>(random() % 5));
    return q;
}

template <class T>
T at(const tensor& t, std::size_t i) {
    T value{};
    std::memcpy(&value, t.bytes.data() + i * sizeof(T), sizeof(T));
    return value;
}

/// A number of a sign, exponent and mantissa, by its definition.
double minifloat(unsigned bits, int exponent_bits, int mantissa_bits) {
    const int bias = (1 << (exponent_bits - 1)) - 1, mantissa = static_cast<int>(bits) & ((1 << mantissa_bits) - 1);
    const int exponent = static_cast<int>(bits) >> mantissa_bits & ((1 << exponent_bits) - 1);
    const double magnitude = exponent == 0
                                 ? std::ldexp(mantissa, 1 - bias - mantissa_bits)
                                 : std::ldexp(mantissa + (1 << mantissa_bits), exponent - bias - mantissa_bits);
    return bits >> (exponent_bits + mantissa_bits) != 0 ? -magnitude : magnitude;
}

double fp4_at(const tensor& t, std::size_t i) {
    return minifloat(at<std::uint8_t>(t, i / 2) >> (4 * (i % 2)) & 15u, 2, 1);
}

/// The weight (n, k) of a layer of K inputs by what compressed-tensors says of the format.
double weight_in(format f, const tensors& all, std::size_t n, std::size_t k, std::size_t K) {
    const tensor& scale = all.at("m.weight_scale");
    const auto half = [&] { return double{gptq::to_float(at<gptq::half>(scale, n))}; };
    switch (f) {
        case format::int_quantized: return half() * at<std::int8_t>(all.at("m.weight"), n * K + k);
        case format::float_quantized: return half() * minifloat(at<std::uint8_t>(all.at("m.weight"), n * K + k), 4, 3);
        case format::mxfp4:
            return std::ldexp(1.0, at<std::uint8_t>(scale, n * K / 32 + k / 32) - 127) *
                   fp4_at(all.at("m.weight_packed"), n * K + k);
        default:
            return minifloat(at<std::uint8_t>(scale, n * K / 16 + k / 16), 4, 3) /
                   double{at<float>(all.at("m.weight_global_scale"), 0)} * fp4_at(all.at("m.weight_packed"), n * K + k);
    }
}

template <class L>
void check_format(format f) {
    CAPTURE(io::format_name(f));
    constexpr std::size_t N = 6, K = 64;
    const auto q = layer_of<L>(N, K);
    const auto all = written(f, q);
    const auto W = gptq::dequantize(q);
    double largest = 0.0;
    for (std::size_t n = 0; n < N; ++n)
        for (std::size_t k = 0; k < K; ++k)
            largest = std::max(largest, std::fabs(weight_in(f, all, n, k, K) - double{W(n, k)}));
    CHECK(largest == 0.0);
    const auto again = read(all, config_of(f));
    CHECK((gptq::dequantize(again) == W));
    CHECK(again.levels == q.levels);
    CHECK(again.sym == q.sym);
    for (const auto& [name, t] : written(f, again)) CHECK((t.bytes == all.at(name).bytes));
}

template <class E>
std::string refusal(const tensors& all, const io::quantization_config& config) {
    return message_of<E>([&] { read(all, config); });
}

}  // namespace

TEST_CASE("every byte is what the format says") {
    check_format<gptq::layout::int_quantized>(format::int_quantized);
    check_format<gptq::layout::float_quantized>(format::float_quantized);
    check_format<gptq::layout::mxfp4_packed>(format::mxfp4);
    check_format<gptq::layout::nvfp4_packed>(format::nvfp4);
}

TEST_CASE("what other programs write is read as well") {
    const auto floats = [](const std::vector<float>& values, std::vector<std::size_t> shape) {
        return tensor{"F32", std::move(shape), {reinterpret_cast<const char*>(values.data()), 4 * values.size()}};
    };
    auto all = written(format::float_quantized, layer_of<gptq::layout::float_quantized>(130, 256));
    auto config = config_of(format::float_quantized);
    all["m.weight_scale"] = floats({0.3f}, {1});
    CHECK(read(all, config).scales(129, 0) == 0.3f);
    config.settings.group_size = 128;
    all["m.weight_scale"] = floats({1.0f, 2.0f, 3.0f, 4.0f}, {2, 2});
    const auto blocks = read(all, config);
    CHECK(blocks.scales(127, 1) == 2.0f);
    CHECK(blocks.scales(128, 0) == 3.0f);
    CHECK(blocks.g_idx(128) == 1);
    auto bytes = written(format::int_quantized, layer_of<gptq::layout::int_quantized>(2, 4));
    bytes["m.weight_zero_point"] = {"I8", {2, 1}, std::string("\xff\3", 2)};
    const auto shifted = read(bytes, config_of(format::int_quantized));
    CHECK(shifted.zeros(0, 0) == 127);
    CHECK(shifted.zeros(1, 0) == 131);
    CHECK_FALSE(shifted.sym);
    // The sign of a zero is of no consequence.
    auto fp4 = written(format::nvfp4, layer_of<gptq::layout::nvfp4_packed>(1, 16));
    fp4["m.weight_packed"].bytes[0] = '\x88';
    CHECK(gptq::dequantize(read(fp4, config_of(format::nvfp4)))(0, 0) == 0.0f);
}

TEST_CASE("elements that lie are refused, naming the tensor") {
    using gptq::format_error, gptq::non_finite_error;
    const auto spoilt = [](format f, const tensors& all, const char* name, std::size_t i, const std::string& bytes) {
        tensors other = all;
        other.at(name).bytes.replace(i, bytes.size(), bytes);
        return refusal<non_finite_error>(other, config_of(f));
    };
    const auto fp8 = written(format::float_quantized, layer_of<gptq::layout::float_quantized>(4, 8));
    const auto mx = written(format::mxfp4, layer_of<gptq::layout::mxfp4_packed>(2, 64));
    const auto nv = written(format::nvfp4, layer_of<gptq::layout::nvfp4_packed>(2, 32));
    CHECK(
        contains(spoilt(format::float_quantized, fp8, "m.weight", 9, "\x7f"), "\"m.weight\": what is stored at row 1"));
    CHECK(contains(spoilt(format::float_quantized, fp8, "m.weight_scale", 0, std::string("\0\x7e", 2)), "NaN"));
    for (const char* exponent : {"\xff", "\xfe"})
        CHECK(contains(spoilt(format::mxfp4, mx, "m.weight_scale", 1, exponent), "\"m.weight_scale\""));
    CHECK(contains(spoilt(format::nvfp4, nv, "m.weight_scale", 3, "\xff"), "row 1, column 1"));
    CHECK(contains(spoilt(format::nvfp4, nv, "m.weight_global_scale", 0, std::string("\1\0\0\0", 4)), "no number"));

    const auto reshaped = [](format f, tensors all, const char* name, const tensor& t) {
        all[name] = t;
        return message_of([&] { read(all, config_of(f)); });
    };
    CHECK(contains(reshaped(format::mxfp4, mx, "m.weight_scale", {"U8", {2, 3}, "abcdef"}), "2 groups"));
    CHECK(contains(reshaped(format::mxfp4, mx, "m.weight_scale", {"U8", {1, 2}, "ab"}), "2 output features"));
    CHECK(contains(reshaped(format::mxfp4, mx, "m.weight_scale", {"I8", {2, 2}, "abcd"}), "U8"));
    CHECK(contains(reshaped(format::nvfp4, nv, "m.weight_global_scale", {"F32", {1}, std::string(4, '\0')}),
                   "other than 0"));
    CHECK(contains(reshaped(format::float_quantized, fp8, "m.weight_scale", {"F16", {3, 1}, "abcdef"}), "4 output"));
    CHECK(contains(reshaped(format::float_quantized, fp8, "m.weight", {"I8", {1, 1}, "a"}), "F8_E4M3"));
    CHECK(contains(reshaped(format::float_quantized, fp8, "m.weight", {"F8_E4M3", {0, 8}, ""}), "empty"));
    auto without = nv;
    without.erase("m.weight_global_scale");
    CHECK(contains(refusal<format_error>(without, config_of(format::nvfp4)), "m.weight_global_scale"));
}

TEST_CASE("what elements cannot hold exactly is refused, naming the module") {
    const auto refused = [](format f, const gptq::quantized_layer& q) {
        const std::string message = message_of([&] { written(f, q); });
        CHECK(contains(message, "module m"));
        return message;
    };
    auto bytes = layer_of<gptq::layout::int_quantized>(4, 32);
    CHECK(contains(refused(format::float_quantized, bytes), "other numbers"));
    CHECK(contains(refused(format::mxfp4, bytes), "4 bits"));
    bytes.zeros(1, 0) = 127;
    CHECK(contains(refused(format::int_quantized, bytes), "zero points"));
    auto fp4 = layer_of<gptq::layout::mxfp4_packed>(4, 64);
    CHECK(contains(refused(format::nvfp4, fp4), "groups of 16"));
    fp4.scales(3, 1) = 0.75f;
    CHECK(contains(refused(format::mxfp4, fp4), "power of two"));
    fp4.scales(3, 1) = 1.0f;
    fp4.g_idx(3) = 1;
    CHECK(contains(refused(format::mxfp4, fp4), "neighbouring"));
    auto nv = layer_of<gptq::layout::nvfp4_packed>(4, 64);
    nv.scales(0, 0) = 1.03125f;
    CHECK(contains(refused(format::nvfp4, nv), "FP8"));
}

TEST_CASE("descriptions of elements are read as they are written") {
    for (const auto f : {format::int_quantized, format::float_quantized, format::mxfp4, format::nvfp4}) {
        const auto object = config_of(f).to_json();
        const auto again = io::quantization_config::from_json(object, "test");
        CHECK(again.format == f);
        CHECK(again.to_json()["config_groups"] == object["config_groups"]);
        const auto refused = [&](const char* key, const json& value, const char* in = "weights") {
            auto other = object;
            (std::string(in).empty() ? other : other["config_groups"]["group_0"][in])[key] = value;
            return message_of<gptq::unsupported_error>([&] { io::quantization_config::from_json(other, "test"); });
        };
        CHECK(contains(refused("type", "complex"), "type"));
        CHECK(contains(refused("strategy", "token"), "strategy"));
        CHECK(contains(refused("num_bits", 6), "6 bits"));
        CHECK(contains(refused("actorder", "group"), "actorder"));
        CHECK(contains(refused("format", "mixed-precision", ""), "mixed-precision"));
        if (object["config_groups"]["group_0"]["input_activations"].is_object())
            CHECK(contains(refused("dynamic", false, "input_activations"), "quantized activations"));
    }
    auto blocks = config_of(format::float_quantized).to_json();
    auto& weights = blocks["config_groups"]["group_0"]["weights"];
    weights["strategy"] = "block";
    weights["block_structure"] = {128, 128};
    CHECK(io::quantization_config::from_json(blocks, "test").settings.group_size == 128);
    weights["block_structure"] = {64, 128};
    CHECK(contains(message_of<gptq::unsupported_error>([&] { io::quantization_config::from_json(blocks, "test"); }),
                   "128 x 128"));
}
