// expect: O::static_groups
#include <span>
#include <vector>

#include <gptq/scheme.hpp>

struct my_order {
    static constexpr bool groups_follow_order = false;
#ifdef CORRECT
    static constexpr bool static_groups = false;
#endif
    std::vector<std::size_t> operator()(std::span<const float>, std::size_t) const;
};

using my_scheme = gptq::scheme<4, gptq::group_size<32>, gptq::symmetric, my_order>;
static_assert(my_scheme::bits == 4);
