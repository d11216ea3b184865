// expect: BlockRule
#include <gptq/observer.hpp>
#include <gptq/quantize.hpp>
#include <gptq/reference_backend.hpp>

struct my_rule {
#ifdef CORRECT
    void operator()(const gptq::column_block&) const {}
#else
    void operator()(gptq::matrix_view<float>) const {}
#endif
};

using factored = gptq::factored_hessian<gptq::reference_backend, gptq::inverse_free_path>;
double solve(const factored& f, gptq::matrix_view<float> W, gptq::no_observer& observer) {
    return gptq::solve_columns(f, W, {W.cols, 128}, my_rule{}, observer);
}
