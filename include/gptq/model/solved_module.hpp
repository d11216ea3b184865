// solved_module: the codes of a module and what is said about them, also as a message between ranks.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <type_traits>
#include <vector>

#include <gptq/error.hpp>
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

static_assert(std::is_trivially_copyable_v<solve_report>);

inline void put(message_writer& to, const solved_module& solved) {
    const quantized_layer& q = solved.codes;
    to.put_text(quant_log({solved.record}));
    to.put(std::array<std::uint64_t, 3>{q.out_features(), q.in_features(), q.group_features});
    to.put(q.bits);
    to.put(q.sym);
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
    solved_module solved;
    solved.record = parse_quant_log(from.get_text(), "a message of another rank").at(0);
    quantized_layer& q = solved.codes;
    const auto [out_features, in_features, group_features] = from.get<std::array<std::uint64_t, 3>>();
    const int bits = from.get<int>();
    const bool sym = from.get<bool>();
    allocate(q, bits, sym, out_features, in_features, group_features);
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
    return solved;
}

}  // namespace detail
}  // namespace gptq::model
