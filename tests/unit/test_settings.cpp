// quantize_settings: what is refused, what a preset is, and that files give back what was put in.
#include <cmath>
#include <string>

#include <gptq/error.hpp>
#include <gptq/io/json.hpp>
#include <gptq/io/quantization_config.hpp>
#include <gptq/io/settings_json.hpp>
#include <gptq/settings.hpp>

#include "support/catch.hpp"
#include "support/files.hpp"

namespace {

using namespace gptq_test;
namespace io = gptq::io;
using gptq::quantize_settings;

std::string refusal(const quantize_settings& settings) {
    return message_of<gptq::option_error>([&] { settings.check(); });
}

/// Every setting at a value that is no preset's.
quantize_settings unusual() {
    return {.bits = 3,
            .group_size = 64,
            .sym = false,
            .order = gptq::order_kind::act_static,
            .damp_percent = 0.003,
            .search = false,
            .candidates = 5,
            .refine_rounds = 2,
            .refine_scales = false,
            .refine_codes = false,
            .correct_drift = true};
}

quantize_settings smoothed(quantize_settings settings, double alpha) {
    settings.smooth = alpha;
    return settings;
}

}  // namespace

TEST_CASE("settings out of range are refused by name, and with what would do", "[settings]") {
    for (const quantize_settings& s :
         {gptq::settings::paper(), gptq::settings::recommended(3), gptq::settings::best(2), gptq::settings::nearest(8),
          gptq::settings::awq(3), smoothed(gptq::settings::nearest(), 0.25), smoothed({}, 0.5), unusual()})
        CHECK_NOTHROW(s.check());
    CHECK(contains(refusal({.bits = 9}), "bits: 9"));
    CHECK(contains(refusal({.bits = 1}), "2 to 8"));
    CHECK(contains(refusal({.group_size = 0}), "group_size: 0"));
    CHECK(contains(refusal({.group_size = gptq::dynamic}), "group_size: -2"));
    CHECK(contains(refusal({.damp_percent = 1.0}), "damp_percent: 1"));
    CHECK(contains(refusal({.damp_percent = -0.01}), "damp_percent: -0.01"));
    CHECK(contains(refusal({.damp_percent = std::nan("")}), "damp_percent: nan"));
    CHECK(contains(refusal({.candidates = 0}), "candidates: 0"));
    CHECK(contains(refusal({.candidates = 17}), "1 to 16"));
    CHECK(contains(refusal({.refine_rounds = -1}), "refine_rounds: -1"));
    quantize_settings rounding = gptq::settings::nearest();
    rounding.candidates = 2;
    CHECK(contains(refusal(rounding), "candidates"));
    CHECK(contains(refusal(smoothed({}, 1.5)), "smooth: 1.5"));
    CHECK(contains(refusal(smoothed({}, std::nan(""))), "smooth: nan"));
    CHECK(contains(refusal(smoothed(gptq::settings::awq(), 0.5)), "awq chooses scales itself"));
    CHECK(contains(refusal(smoothed(gptq::settings::best(), 0.5)), "drift"));
}

TEST_CASE("presets say what they are called after", "[settings]") {
    // Section 4 of the paper, and its code's default damping.
    const auto paper = gptq::settings::paper();
    CHECK(paper.order == gptq::order_kind::natural);
    CHECK(paper.damp_percent == 0.01);
    CHECK(paper.group_size == gptq::per_channel);
    CHECK_FALSE(paper.sym);
    CHECK_FALSE(paper.search);
    CHECK(gptq::settings::recommended() == quantize_settings{});
    CHECK(gptq::settings::recommended().order == gptq::order_kind::group_aware);
    auto best = gptq::settings::best(4);
    CHECK(best.correct_drift);
    best.correct_drift = false;
    CHECK(best == gptq::settings::recommended(4));
    CHECK(gptq::settings::best(2).candidates == 8);
}

TEST_CASE("settings come back from JSON as they were", "[settings]") {
    for (const quantize_settings& s :
         {gptq::settings::paper(), gptq::settings::recommended(3), gptq::settings::best(2), gptq::settings::nearest(8),
          gptq::settings::awq(3), smoothed(gptq::settings::nearest(), 0.25), smoothed({}, 0.5), unusual()}) {
        const auto text = io::settings_json(s).dump();
        CHECK(io::settings_from_json(io::parse_json<nlohmann::ordered_json>(text, "test"), "test") == s);
    }
    CHECK(io::settings_json({})["damping"] == "auto");
    const auto complaint = [](const std::string& text) {
        return message_of<gptq::format_error>(
            [&] { io::settings_from_json(io::parse_json<nlohmann::ordered_json>(text, "test"), "where"); });
    };
    CHECK(contains(complaint(R"({"bits": 12})"), "where: bits: 12"));
    CHECK(contains(complaint(R"({"order": "up"})"), "\"up\""));
    CHECK(contains(complaint(R"({"damping": "some"})"), "\"damping\" must be a number"));
    CHECK(contains(complaint(R"({"refine": 3})"), "\"refine\""));
    CHECK(contains(complaint("[]"), "not a JSON object"));
}

TEST_CASE("a checkpoint's description tells all settings that made it, in every format", "[settings]") {
    for (const auto format :
         {io::checkpoint_format::gptq, io::checkpoint_format::gptq_v2, io::checkpoint_format::compressed_tensors})
        for (const quantize_settings& s : {gptq::settings::paper(), gptq::settings::recommended(8),
                                           gptq::settings::best(4), gptq::settings::nearest(8), gptq::settings::awq(3),
                                           smoothed(gptq::settings::nearest(), 0.25), smoothed({}, 0.5), unusual()}) {
            if (format == io::checkpoint_format::compressed_tensors && s.bits == 3) continue;
            io::quantization_config c;
            c.format = format;
            c.settings = s;
            c.calibration = io::calibration_record{12, 512, "first", false};
            const auto again = io::quantization_config::from_json(c.to_json(), "test");
            CHECK(again.settings == s);
            CHECK(again.calibration == c.calibration);
        }
}

TEST_CASE("the description names a damping only where one was given", "[settings]") {
    CHECK_FALSE(io::quantization_config{}.to_json().contains("damp_percent"));
    io::quantization_config c;
    c.settings.damp_percent = 0.02;
    CHECK(c.to_json()["damp_percent"] == 0.02);
    // Readers in Python refuse anything but 0 < damp_percent < 1.
    c.settings.damp_percent = 0.0;
    CHECK_FALSE(c.to_json().contains("damp_percent"));
}
