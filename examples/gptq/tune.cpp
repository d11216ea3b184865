// gptq tune: writes a copy of a quantized model whose scales are tuned against the float model. gptq finetune: trains
// an adapter over a model.
#include <cstddef>
#include <cstdio>
#include <string>

#include <gptq/io/folder_writer.hpp>
#include <gptq/io/model_folder.hpp>
#include <gptq/model/finetune_model.hpp>
#include <gptq/model/tune_model.hpp>

#include "commands.hpp"
#include "interrupt.hpp"
#include "output.hpp"
#include "progress.hpp"
#include "quantize.hpp"

namespace program {
namespace {

/// Shows each look at the held-out windows, and on a terminal each step.
class tuning_watcher {
 public:
    /// `measure` is what is shown of the windows that are held out.
    tuning_watcher(std::size_t steps, const char* measure) : steps_(steps), measure_(measure) {}

    model::tune_observer observer() {
        return {throw_if_interrupted, [this](const model::tune_progress& p) { show(p); },
                [this](std::size_t step) {
                    bar_.note(format("%zu of %zu steps are done by an earlier run; this one goes on from there", step,
                                     steps_));
                }};
    }

 private:
    void show(const model::tune_progress& p) {
        throw_if_interrupted();
        const double fraction = static_cast<double>(p.step) / static_cast<double>(steps_);
        bar_.update(fraction, format("step %zu", p.step + 1));
        if (p.held_out)
            bar_.step(format("%5.1f %%  step %zu: held-out %s %.5f", 100.0 * fraction, p.step, measure_, *p.held_out));
    }

    std::size_t steps_;
    const char* measure_;
    progress bar_;
};

void print_tuned(const tune_arguments& arguments, const model::tune_result& r) {
    if (arguments.json)
        return print_json({{"out", arguments.out},
                           {"layers", r.layers},
                           {"norms", r.norms},
                           {"steps", arguments.steps},
                           {"kept_step", r.kept_step},
                           {"divergence", r.after},
                           {"divergence_before", r.before},
                           {"seconds", r.seconds},
                           {"forward_seconds", r.forward_seconds},
                           {"reverse_seconds", r.reverse_seconds},
                           {"bytes", r.bytes},
                           {"warnings", r.warnings}});
    print(format("%s: scales of %zu layers%s tuned in %s, %s of tensors\n", arguments.out.c_str(), r.layers,
                 r.norms != 0 ? format(" and %zu norms", r.norms).c_str() : "", duration_string(r.seconds).c_str(),
                 bytes_string(r.bytes).c_str()));
    print(format("divergence from the float model on held-out windows %.5f, before %.5f (step %zu of %zu is kept)\n",
                 r.after, r.before, r.kept_step, arguments.steps));
}

model::tune_result run(const tune_arguments& arguments) {
    const io::model_folder folder(arguments.model), reference(arguments.reference);
    const model::token_windows windows = quantizing::read_windows(folder, arguments);
    const model::tune_options options{arguments.steps, arguments.rate, arguments.norms, arguments.restart};
    tuning_watcher watcher(arguments.steps, "divergence");
    return telling_of_blocks(arguments.out, [&] {
        return model::tune_model(folder, reference, arguments.out, windows, options, watcher.observer());
    });
}

}  // namespace

void tune(const tune_arguments& arguments) {
    io::refuse_existing(arguments.out);
    const model::tune_result result = run(arguments);
    for (const std::string& warning : result.warnings) warn(warning);
    print_tuned(arguments, result);
}

void finetune(const finetune_arguments& arguments) {
    io::refuse_existing(arguments.out);
    const io::model_folder folder(arguments.model);
    const model::finetune_options options{arguments.rank,    arguments.alpha, arguments.steps, arguments.rate,
                                          arguments.targets, arguments.seed,  arguments.start};
    tuning_watcher watcher(options.steps, "loss");
    const model::finetune_result r = model::finetune_model(
        folder, arguments.out, quantizing::read_windows(folder, arguments), options, watcher.observer());
    if (arguments.json)
        return print_json({{"out", arguments.out},
                           {"layers", r.layers},
                           {"parameters", r.parameters},
                           {"steps", options.steps},
                           {"loss", r.after},
                           {"loss_before", r.before},
                           {"seconds", r.seconds}});
    print(format("%s: %zu numbers for %zu layers, learned in %s\n", arguments.out.c_str(), r.parameters, r.layers,
                 duration_string(r.seconds).c_str()));
    print(format("loss of the held-out windows %.5f a token, before %.5f\n", r.after, r.before));
}

}  // namespace program
