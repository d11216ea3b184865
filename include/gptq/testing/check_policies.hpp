// check_order and check_group_policy: hold orders and group policies to their sentences in <gptq/concepts.hpp>.
#pragma once

#include <algorithm>
#include <cstddef>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include <gptq/concepts.hpp>
#include <gptq/error.hpp>
#include <gptq/factor.hpp>
#include <gptq/groups.hpp>
#include <gptq/matrix_view.hpp>
#include <gptq/orders.hpp>
#include <gptq/testing/violations.hpp>

namespace gptq::testing {

namespace detail {

/// Diagonals of Hessians as they occur: of inputs that differ, that are alike, and that rise.
inline std::vector<std::vector<float>> diagonals() {
    std::vector<std::vector<float>> all;
    random_numbers random(3);
    for (const std::size_t K : {1u, 2u, 7u, 48u, 100u}) {
        std::vector<float> random_ones(K), rising(K);
        for (std::size_t k = 0; k < K; ++k) {
            random_ones[k] = 1.5f + random.real();
            rising[k] = 1.0f + static_cast<float>(k);
        }
        all.insert(all.end(), {random_ones, std::vector<float>(K, 1.0f), rising});
    }
    return all;
}

/// Throws concept_error where `order` breaks a sentence for this diagonal and groups of this size.
template <class Order>
void check_one_order(const Order& order, const std::vector<float>& diag, std::size_t group_features) {
    const column_order columns = order(diag, group_features);
    gptq::detail::check_permutation(columns, diag.size());
    if (order(std::vector<float>(diag), group_features) != columns)
        throw concept_error("OrderingPolicy 1: the same diagonal gives another order the second time");
    if (!Order::static_groups)
        gptq::detail::check_neighbours(gptq::detail::groups_at<Order>(columns, group_features), group_features);
}

}  // namespace detail

/// Holds `order` to sentences 1 and 3 of OrderingPolicy, for layers of 1 to 100 inputs in groups of several sizes. Each
/// sentence that is broken gives one line.
template <OrderingPolicy Order>
[[nodiscard]] violations check_order(const Order& order = {}) {
    violations found;
    std::set<std::string> sentences;
    for (const std::vector<float>& diag : detail::diagonals())
        for (const std::size_t wanted : {std::size_t{1}, std::size_t{3}, std::size_t{16}, diag.size()}) {
            const std::size_t group_features = std::min(wanted, diag.size());
            try {
                detail::check_one_order(order, diag, group_features);
            } catch (const concept_error& broken) {
                const std::string what = broken.what();
                if (sentences.insert(what.substr(0, what.find(':'))).second)
                    found.push_back(what + ", for " + std::to_string(diag.size()) + " inputs in groups of " +
                                    std::to_string(group_features));
            }
        }
    return found;
}

/// Holds G to sentence 1 of GroupPolicy; a request that G refuses by an exception of the library is no violation.
template <GroupPolicy G>
[[nodiscard]] violations check_group_policy() {
    for (const std::size_t in_features : {1u, 2u, 7u, 128u, 4096u})
        for (const int requested : {per_channel, dynamic, 1, 32, 128, 100000}) try {
                static_cast<void>(gptq::detail::features_of<G>(in_features, requested));
            } catch (const concept_error& broken) {
                return {broken.what()};
            } catch (const error&) {
            }
    return {};
}

}  // namespace gptq::testing
