// solved_module: the codes of a module and what is said about them, also as a message between ranks.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <type_traits>
#include <vector>

#include <gptq/messages.hpp>
#include <gptq/model/quantize_log.hpp>
#include <gptq/quantized.hpp>
#include <gptq/xtensor/quantized.hpp>

namespace gptq::model {

/// A layer's codes, and the numbers of its module_record that they decide.
struct solved_module {
    quantized_layer codes;
    module_record record;
};

namespace detail {

/// The numbers that a message carries as they are.
struct solved_numbers {
    std::uint64_t out_features, in_features, group_features;
    std::int64_t bits, sym;
    double error, rtn_error, damp_percent, seconds, relative_error, drift_share;
    std::uint64_t samples;
};
static_assert(std::is_trivially_copyable_v<solve_report>);

inline void put(message_writer& to, const solved_module& solved) {
    const quantized_layer& q = solved.codes;
    const module_record& r = solved.record;
    to.put(solved_numbers{q.out_features(), q.in_features(), q.group_features, q.bits, q.sym, r.error, r.rtn_error,
                          r.damp_percent, r.seconds, r.relative_error, r.drift_share, r.samples});
    to.put(q.report);
    const auto put_all = [&to](const auto& container) { to.put_list(std::span(container.data(), container.size())); };
    put_all(q.codes);
    put_all(q.scales);
    put_all(q.zeros);
    put_all(q.g_idx);
    put_all(q.levels);
}

/// What put() has written. Throws format_error for another message.
inline solved_module get_solved(message_reader& from) {
    const auto n = from.get<solved_numbers>();
    solved_module solved;
    quantized_layer& q = solved.codes;
    allocate(q, static_cast<int>(n.bits), n.sym != 0, n.out_features, n.in_features, n.group_features);
    q.report = from.get<solve_report>();
    const auto get_all = [&from]<class C>(C& container) {
        const auto numbers = from.get_list<typename C::value_type>();
        if (numbers.size() != container.size()) throw format_error("a message of another rank is no layer");
        std::copy(numbers.begin(), numbers.end(), container.data());
    };
    get_all(q.codes);
    get_all(q.scales);
    get_all(q.zeros);
    get_all(q.g_idx);
    q.levels = from.get_list<float>();
    module_record& r = solved.record;
    r.error = n.error;
    r.rtn_error = n.rtn_error;
    r.damp_percent = n.damp_percent;
    r.seconds = n.seconds;
    r.relative_error = n.relative_error;
    r.drift_share = n.drift_share;
    r.samples = n.samples;
    return solved;
}

}  // namespace detail
}  // namespace gptq::model
