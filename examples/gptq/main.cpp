// gptq: quantizes language models and runs them. This file reads the command line; the subcommands have files of their
// own.
//
// Exit status: 0, or 2 for a usage error, or 1 for anything else, with one line on standard error that says what and
// where.
#include <algorithm>
#include <cstdio>
#include <exception>
#include <functional>
#include <iostream>
#include <new>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include <CLI/CLI.hpp>

#include <gptq/error.hpp>
#include <gptq/io/checkpoint_format.hpp>
#include <gptq/layouts/ggml_blocks.hpp>
#include <gptq/options.hpp>
#include <gptq/quote.hpp>
#include <gptq/settings.hpp>
#include <gptq/version.hpp>

#include "commands.hpp"
#include "interrupt.hpp"
#include "number_checks.hpp"
#include "output.hpp"
#include "ranks.hpp"
#include "threads.hpp"

namespace {

using namespace program;

/// The options that all subcommands have; `run` is called with the filled arguments.
template <class Arguments>
void add_common(CLI::App& command, Arguments& arguments, void (*run)(const Arguments&), std::function<void()>& chosen) {
    command.add_flag("--json", arguments.json, "print one JSON object on standard output");
    command.add_option("--threads", arguments.threads, "threads to compute with; default: what BLAS and OpenMP choose")
        ->check(CLI::Range(1, 4096));
    command.callback([&arguments, &chosen, run] {
        chosen = [&arguments, run] {
            use_threads(arguments.threads, Arguments::computes);
            if constexpr (requires { arguments.reproducible; })
                if (arguments.reproducible) fix_order_of_sums();
            run(arguments);
        };
    });
}

/// Adds a subcommand that reads a MODEL.
template <class Arguments>
CLI::App* add_command(CLI::App& app, const std::string& name, const std::string& what, Arguments& arguments,
                      void (*run)(const Arguments&), std::function<void()>& chosen) {
    CLI::App* command = app.add_subcommand(name, what);
    command->add_option("MODEL", arguments.model, "Hugging Face folder, quantized or not")->required();
    add_common(*command, arguments, run, chosen);
    return command;
}

/// The options of subcommands that compute with a model.
void add_device_options(CLI::App& command, compute_arguments& a) {
    command.add_option("--device", a.device, "where to compute: cpu, cuda or cuda:N")
        ->check(device_name())
        ->capture_default_str();
    command
        .add_option("--compute-dtype", a.compute_dtype,
                    "numbers that layers read and write on a GPU; auto: the model's")
        ->check(CLI::IsMember({"auto", "float", "half", "bfloat16"}))
        ->capture_default_str();
}

void add_reproducible(CLI::App& command, compute_arguments& a) {
    command
        .add_flag("--reproducible", a.reproducible,
                  "the same bytes with any number of threads and on any processor of the architecture; slower")
        ->excludes("--device");
}

void add_special_tokens(CLI::App& command, bool& special_tokens) {
    command.add_flag(
        "--special-tokens,!--no-special-tokens", special_tokens,
        "put the token that the tokenizer heads its texts with, if any, at the head of the text; on unless "
        "--no-special-tokens");
}

/// How many windows of calibration text, and how long they are.
void add_windows(CLI::App& command, calibration_arguments& a) {
    command.add_option("--nsamples", a.nsamples, "windows of text")->check(at_least_one())->capture_default_str();
    command.add_option("--seqlen", a.seqlen, "tokens a window; default: 2048, or what the model was made for if less")
        ->check(CLI::Range(2, 1 << 20));
}

/// Those that studies have, too: what is done to a layer.
void add_solver_settings(CLI::App& command, gptq::quantize_settings& s) {
    command
        .add_option("--smooth", s.smooth,
                    "SmoothQuant's alpha: fold scales into what comes before layers, so that their weights take over "
                    "this share of the inputs' outliers")
        ->check(CLI::Range(0.0, 1.0));
    const auto take_damping = [&s](const std::string& given) {
        s.damp_percent = given == "auto" ? std::nullopt : std::optional(std::stod(given));
    };
    command
        .add_option_function<std::string>(
            "--damp-percent", take_damping,
            "added to the Hessian's diagonal, as a fraction of its mean; auto: by each layer's own diagonal")
        ->check(CLI::IsMember({"auto"}) | CLI::Range(0.0, 1.0))
        ->default_str("auto");
    command.add_flag("--search,!--no-search", s.search,
                     "search each group's range, and its scale's sign if symmetric, by the loss that the solver sees; "
                     "on unless --no-search");
    command.add_flag("--correct-drift", s.correct_drift, "aim at the float model's outputs; runs that model beside");
    command.add_flag("--guided", s.guided,
                     "let each token count by what the model's loss feels of errors there; runs the float model back");
    command
        .add_option("--candidates", s.candidates, "partial sequences of codes to keep; 1: round to the nearest value")
        ->check(CLI::Range(std::size_t{1}, gptq::max_candidates))
        ->capture_default_str();
    command.add_option("--refine", s.refine_rounds, "rounds of refitting scales and codes after the loop")
        ->check(CLI::Range(0, gptq::max_refine_rounds))
        ->capture_default_str();
}

/// The options that the settings of a quantization come from.
void add_settings(CLI::App& command, gptq::quantize_settings& s) {
    command.add_option("--bits", s.bits, "bits a weight: 2, 3, 4 or 8")->capture_default_str();
    command.add_option("--group-size", s.group_size, "input features that share a scale; -1: all of a row")
        ->capture_default_str();
    CLI::Option* asym = command.add_flag_callback(
        "--asym", [&s] { s.sym = false; }, "asymmetric grid; the default of --method awq");
    command
        .add_flag_callback(
            "--sym", [&s] { s.sym = true; }, "symmetric grid; the default of other methods")
        ->excludes(asym);
    const auto take_order = [&s](const std::string& name) { s.order = gptq::order_of_name(name).value(); };
    CLI::Option* order =
        command.add_option_function<std::string>("--order", take_order, "in which order columns are quantized")
            ->check(CLI::IsMember(gptq::order_names))
            ->default_str(gptq::order_name(s.order));
    command
        .add_flag_callback(
            "--desc-act", [&s] { s.order = gptq::order_kind::act; }, "the same as --order act")
        ->excludes(order);
    add_solver_settings(command, s);
}

/// Puts the settings of `preset` in the place of those that no option names.
void take_preset(const CLI::App& command, const gptq::quantize_settings& preset, gptq::quantize_settings& s) {
    const auto given = [&](const char* option) { return command.count(option) != 0; };
    if (!given("--order") && !given("--desc-act")) s.order = preset.order;
    if (!given("--search")) s.search = preset.search;
    if (!given("--correct-drift")) s.correct_drift = preset.correct_drift;
    if (!given("--guided")) s.guided = preset.guided;
    if (!given("--candidates")) s.candidates = preset.candidates;
    if (!given("--refine")) s.refine_rounds = preset.refine_rounds;
}

/// Formats that hold one number of bits and one size of groups need no option that names them.
void take_format(const CLI::App& command, const std::string& name, gptq::quantize_settings& s) {
    const auto format = gptq::io::format_of_name(name);
    if (!format) return;
    gptq::io::visit_layout(*format, [&]<class L>() {
        if constexpr (gptq::layout::holds_elements<L>) {
            if (command.count("--bits") == 0) s.bits = L::bits;
            if (command.count("--group-size") == 0) s.group_size = L::group_size;
        }
    });
}

/// OUT as a GGUF file, which decides what other options would.
void add_gguf_type(CLI::App& command, quantize_arguments& a) {
    std::vector<std::string> names;
    for (const gptq::layout::ggml_type& type : gptq::layout::ggml_types) names.emplace_back(type.name);
    CLI::Option* type =
        command
            .add_option("--type", a.type, "OUT becomes a GGUF file for llama.cpp whose layers have blocks of this type")
            ->check(CLI::IsMember(names));
    for (const char* other :
         {"--bits",   "--group-size", "--asym",    "--sym",           "--order",   "--desc-act", "--search",
          "--smooth", "--candidates", "--refine",  "--correct-drift", "--best",    "--tuned",    "--method",
          "--format", "--dynamic",    "--lm-head", "--memory",        "--restart", "--device",   "--hessians"})
        type->excludes(command.get_option(other));
    command.add_option("--base", a.base, "with --type: the float GGUF file of MODEL; default: MODEL, if it is one")
        ->needs(type);
    command.add_option("--rest", a.rest, "with --type: what becomes of matrices outside of blocks")
        ->check(CLI::IsMember({"keep", "q8_0"}))
        ->needs(type)
        ->capture_default_str();
}

void add_quantize(CLI::App& app, quantize_arguments& a, std::function<void()>& chosen) {
    CLI::App* command = add_command(app, "quantize", "write a quantized copy of MODEL", a, quantize, chosen);
    add_device_options(*command, a);
    add_reproducible(*command, a);
    command->add_option("OUT", a.out, "folder, or GGUF file, to write; must not exist yet")->required();
    add_settings(*command, a.settings);
    command->add_flag("--best", a.best,
                      "what does best in the format: --correct-drift, and up to 3 bits --refine 1 --candidates 8");
    CLI::Option* tuned =
        command
            ->add_flag("--tuned{300}", a.tuned,
                       "--best, and scales tuned after it in 300 steps, or --tuned=N in N ones, as by gptq tune")
            ->check(at_least_one());
    const auto take_method = [&a](const std::string& name) { a.settings.method = gptq::method_of_name(name).value(); };
    command
        ->add_option_function<std::string>(
            "--method", take_method,
            "gptq; rtn: round to nearest, the baseline; or awq: that after scales are folded into what comes before, "
            "in clipped groups")
        ->check(CLI::IsMember(gptq::method_names))
        ->default_str("gptq");
    command->add_option("--calib", a.calib, "text file to calibrate with; -: standard input; rtn needs none");
    CLI::Option* hessians = command->add_option(
        "--hessians", a.hessians, "folder of Hessians that another program stored, in place of a text: for any model");
    command->parse_complete_callback([&a, command, tuned] {
        const bool rounds = a.settings.method != gptq::quantize_method::gptq;
        const bool blind = a.settings.method == gptq::quantize_method::round_to_nearest && !a.settings.smooth;
        if (a.calib.empty() && a.hessians.empty() && !blind) throw CLI::RequiredError("--calib or --hessians");
        if (a.tuned != 0 && (a.calib.empty() || a.calib == "-"))
            throw CLI::ValidationError(tuned->get_name(), "reads --calib twice, so it needs a file");
        take_format(*command, a.format, a.settings);
        if (rounds) take_preset(*command, gptq::settings::nearest(), a.settings);
        if (a.settings.method == gptq::quantize_method::awq) a.settings.sym = command->count("--sym") != 0;
        gptq::quantize_settings best = gptq::settings::best(a.settings.bits);
        best.correct_drift = best.correct_drift && a.hessians.empty();
        if (a.best || a.tuned != 0) take_preset(*command, best, a.settings);
    });
    command
        ->add_option("--sampling", a.sampling,
                     "where the windows are: spread over the whole text, or its first, as other tools take them")
        ->check(CLI::IsMember({"spread", "first"}))
        ->capture_default_str();
    add_special_tokens(*command, a.special_tokens);
    add_windows(*command, a);
    command->add_option("--format", a.format, "layout of OUT; default: gptq, with --asym gptq_v2")
        ->check(CLI::IsMember(gptq::io::format_names));
    command->add_option("--dynamic", a.dynamic_rules, "JSON file: regular expression of module names -> settings");
    command->add_flag("--lm-head", a.lm_head, "quantize the output layer too");
    command
        ->add_option("--memory", a.memory,
                     "bytes of memory to take, such as 6GB; default: what the system has free. Where all calibration "
                     "text does not fit, a part is computed twice or goes to a file; the result is the same")
        ->transform(size_in_bytes());
    command->add_flag("--restart", a.restart, "begin anew where an unfinished run has left finished blocks");
    // They decide how a model is run, or which of its layers take part.
    for (const char* other :
         {"--calib", "--correct-drift", "--lm-head", "--device", "--memory", "--nsamples", "--seqlen"})
        hessians->excludes(other);
    add_gguf_type(*command, a);
}

void add_prune(CLI::App& app, prune_arguments& a, std::function<void()>& chosen) {
    CLI::App* command =
        add_command(app, "prune", "write a copy of the float MODEL with many weights 0", a, prune, chosen);
    command->add_option("OUT", a.out, "folder to write; must not exist yet")->required();
    command
        ->add_option("--sparsity", a.sparsity,
                     "share of the weights that become 0, such as 0.5, or how many of how many neighbours stay: 2:4")
        ->required();
    command->add_option("--calib", a.calib, "text file to calibrate with; -: standard input")->required();
    command->add_option("--method", a.method, "sparsegpt, or magnitude: by the weights' size alone, the baseline")
        ->check(CLI::IsMember({"sparsegpt", "magnitude"}))
        ->capture_default_str();
    add_windows(*command, a);
}

/// Windows of a text of which some are held out.
void add_divided_windows(CLI::App& command, calibration_arguments& a) {
    command.add_option("--nsamples", a.nsamples, "windows of text, of which one in eight, at most eight, is held out")
        ->check(CLI::Range(2, 1 << 20))
        ->capture_default_str();
    command.add_option("--seqlen", a.seqlen, "tokens a window")->check(CLI::Range(2, 1 << 20))->capture_default_str();
}

void add_finetune(CLI::App& app, finetune_arguments& a, std::function<void()>& chosen) {
    CLI::App* command = add_command(app, "finetune", "train a LoRA adapter over MODEL, whose weights stay as they are",
                                    a, finetune, chosen);
    command->add_option("OUT", a.out, "folder of the adapter to write; must not exist yet")->required();
    command->add_option("--text", a.calib, "text file to learn; -: standard input")->required();
    command->add_option("--steps", a.steps, "steps, of a window each")->check(at_least_one())->capture_default_str();
    command->add_option("--rank", a.rank, "rows of A, columns of B")->check(at_least_one())->capture_default_str();
    command->add_option("--alpha", a.alpha, "the adapter adds alpha / rank times B A")->capture_default_str();
    command->add_option("--rate", a.rate, "of Adam at first; it falls to 0")
        ->check(CLI::Range(0.0, 1.0))
        ->capture_default_str();
    command->add_option("--targets", a.targets, "layers by the ends of their names; default: all of the blocks")
        ->delimiter(',');
    command->add_option("--seed", a.seed, "of what A begins with")->capture_default_str();
    command->add_option("--adapter", a.start, "folder of an adapter of this rank to go on from");
    add_divided_windows(*command, a);
}

void add_tune(CLI::App& app, tune_arguments& a, std::function<void()>& chosen) {
    CLI::App* command =
        add_command(app, "tune", "write a copy of the quantized MODEL with tuned scales", a, tune, chosen);
    command->add_option("FLOAT", a.reference, "the float model that MODEL was made from")->required();
    command->add_option("OUT", a.out, "folder to write; must not exist yet")->required();
    command->add_option("--calib", a.calib, "text file to tune with; -: standard input")->required();
    command->add_option("--steps", a.steps, "steps, of a window each")->check(at_least_one())->capture_default_str();
    command
        ->add_option("--rate", a.rate,
                     "relative change of a scale in a step at first; default: 0.005, 0.002 or 0.001, by the bits")
        ->check(CLI::Range(0.0, 1.0));
    command->add_flag("--norms", a.norms, "tune the weights of norms too");
    command->add_flag("--restart", a.restart, "begin anew where an unfinished run has left its steps");
    add_divided_windows(*command, a);
}

/// An option that may be given several times, with a text each time that is taken as it is.
CLI::Option* add_texts(CLI::App& command, const std::string& name, std::vector<std::string>& texts,
                       const std::string& what) {
    const auto take = [&texts](const CLI::results_t& given) {
        texts = given;
        return true;
    };
    return command.add_option(name, take, what)->expected(1)->take_all()->type_name("TEXT");
}

/// The options of subcommands that run a model.
void add_run_options(CLI::App& command, run_arguments& a) {
    add_device_options(command, a);
    command.add_option("--activation", a.activation, "what inputs of quantized layers are rounded to")
        ->check(CLI::IsMember({"exact", "int16", "int8"}))
        ->capture_default_str();
    command.add_flag("--head-8bit,!--no-head-8bit", a.head_in_8_bits,
                     "round the output layer of a quantized model to 8 bits in memory");
    command.add_flag_callback(
        "--exact",
        [&a] {
            a.activation = "exact";
            a.head_in_8_bits = false;
        },
        "round nothing: --activation exact --no-head-8bit");
    add_texts(command, "--adapter", a.adapters,
              "folder of a LoRA adapter, or FOLDER:WEIGHT to scale it; may be given several times");
}

void add_eval(CLI::App& app, eval_arguments& a, std::function<void()>& chosen) {
    CLI::App* command = add_command(app, "eval", "perplexity of MODEL on a text", a, eval, chosen);
    add_run_options(*command, a);
    add_reproducible(*command, a);
    add_texts(*command, "--text", a.texts, "text file to score; may be given several times")->required();
    command->add_option("--seqlen", a.seqlen, "tokens a window; default: 2048, or what the model was made for if less")
        ->check(CLI::Range(2, 1 << 20));
    add_special_tokens(*command, a.special_tokens);
    command->add_option("--max-tokens", a.max_tokens, "score the first N tokens only")->check(at_least_one());
    CLI::Option* names = command
                             ->add_option("--dump", a.dump,
                                          "write what is computed in the first window under these names, such as "
                                          "model.layers.0.mlp.down_proj.input,model.layers.0.output,logits")
                             ->delimiter(',');
    CLI::Option* file = command->add_option("--dump-to", a.dump_to, "safetensors file to write it to")->needs(names);
    names->needs(file);
    command->add_option("--baseline", a.baseline, "the model that MODEL was made from: scored too, and compared");
}

void add_diagnose(CLI::App& app, diagnose_arguments& a, std::function<void()>& chosen) {
    CLI::App* command = add_command(app, "diagnose", "find where the quantized MODEL goes wrong", a, diagnose, chosen);
    command->add_option("--against", a.reference, "the float model that MODEL was made from")->required();
    command->add_option("--text", a.calib, "text file to run both models on; -: standard input")->required();
    add_windows(*command, a);
}

void add_generate(CLI::App& app, generate_arguments& a, std::function<void()>& chosen) {
    CLI::App* command = add_command(app, "generate", "continue a prompt", a, generate, chosen);
    add_run_options(*command, a);
    add_texts(*command, "--prompt", a.prompts, "text to continue; may be given several times")->required();
    command->add_option("-n,--tokens", a.tokens, "tokens to generate")->capture_default_str();
    command->add_option("--temperature", a.sampling.temperature, "0: always the most likely token")
        ->check(not_negative())
        ->capture_default_str();
    command->add_option("--top-k", a.sampling.top_k, "draw from so many most likely tokens; 0: from all")
        ->capture_default_str();
    command->add_option("--top-p", a.sampling.top_p, "draw from the most likely tokens that make up this probability")
        ->check(fraction())
        ->capture_default_str();
    command->add_option("--min-p", a.sampling.min_p, "draw from tokens this likely, as a part of the most likely one")
        ->check(fraction())
        ->capture_default_str();
    command
        ->add_option("--repetition-penalty", a.sampling.repetition_penalty,
                     "above 1: tokens that the text has already are less likely")
        ->check(above_zero())
        ->capture_default_str();
    add_texts(*command, "--stop", a.stops, "end before this text; may be given several times");
    CLI::Option* chat = command->add_flag("--chat", a.chat, "put each prompt into the model's chat template");
    command->add_option("--system", a.system, "system message of the chat")->needs(chat);
    command->add_option("--seed", a.seed, "of the random numbers that sampling draws")->capture_default_str();
}

void add_tokenize(CLI::App& app, tokenize_arguments& a, std::function<void()>& chosen) {
    CLI::App* command = add_command(app, "tokenize", "the tokens of a text, one id a line", a, tokenize, chosen);
    command->add_option("--text", a.text, "text file")->required();
}

void add_merge(CLI::App& app, merge_arguments& a, std::function<void()>& chosen) {
    CLI::App* command =
        add_command(app, "merge", "write a copy of the float MODEL with an adapter in it", a, merge, chosen);
    command->add_option("ADAPTER", a.adapter, "folder of a LoRA adapter, or FOLDER:WEIGHT to scale it")->required();
    command->add_option("OUT", a.out, "folder to write; must not exist yet")->required();
}

/// Numbers of tokens that bench works on, at most.
constexpr std::size_t most_tokens = std::size_t{1} << 24;

void add_convert(CLI::App& app, convert_arguments& a, std::function<void()>& chosen) {
    CLI::App* command = add_command(app, "convert", "write a quantized MODEL in another format", a, convert, chosen);
    command->add_option("OUT", a.out, "folder, or GGUF file, to write; must not exist yet")->required();
    std::vector<std::string> formats(gptq::io::format_names.begin(), gptq::io::format_names.end());
    formats.emplace_back("gguf");
    command->add_option("--format", a.format, "format to write")->check(CLI::IsMember(formats))->required();
    CLI::Option* base = command->add_option("--base", a.base, "with gguf: the GGUF file of the float model");
    command->add_option("--rest", a.rest, "with gguf: what becomes of matrices that are not quantized")
        ->check(CLI::IsMember({"keep", "q8_0"}))
        ->needs(base)
        ->capture_default_str();
}

void add_study(CLI::App& app, study_arguments& a, std::function<void()>& chosen) {
    CLI::App* command = add_command(app, "study", "quantize MODEL in many ways, and report what each costs and loses",
                                    a, study, chosen);
    command->add_option("--out", a.out, "folder of the study; an unfinished one is gone on with")->required();
    command->add_option("--calib", a.calib, "text file to calibrate with")->required();
    add_texts(*command, "--text", a.texts, "text file to score; may be given several times");
    const auto add_axis = [&](const char* name, std::string& list, const char* what) {
        command->add_option(name, list, std::string(what) + "; a list with commas")->capture_default_str();
    };
    add_axis("--method", a.methods, "rtn, gptq, best; at depth model awq, at depth layers nf4, fp4, too");
    add_axis("--bits", a.bits, "bits a weight: 2, 3, 4 or 8");
    add_axis("--group-size", a.group_sizes, "input features that share a scale; -1: all of a row");
    add_axis("--grid", a.grids, "sym, asym");
    add_axis("--order", a.orders, "natural, act, static, gar");
    add_solver_settings(*command, a.settings);
    command->add_option("--plan", a.plan, "JSON file of axes, where they are not one product");
    command->add_option("--format", a.format, "layout of checkpoints; default: gptq, for asymmetric grids gptq_v2")
        ->check(CLI::IsMember(gptq::io::format_names));
    command->add_option("--depth", a.depth, "model: perplexities; layers: errors of single layers, much faster")
        ->check(CLI::IsMember({"model", "layers"}))
        ->capture_default_str();
    add_windows(*command, a);
    command->add_option("--max-tokens", a.max_tokens, "score the first N tokens of each text only")
        ->check(at_least_one());
    command->add_option("--jobs", a.jobs, "processes that compute cells side by side")
        ->check(CLI::Range(1, 256))
        ->capture_default_str();
    command->add_flag("--worker", a.worker)->group("");
    command->add_flag("--keep", a.keep, "keep the checkpoints, in the folder work");
    command
        ->add_option("--sensitivity", a.sensitivity,
                     "at depth layers, tokens on which to measure what the model loses by each layer, which gptq "
                     "allocate needs; 0: do not")
        ->check(CLI::Range(0, 1 << 20))
        ->capture_default_str();
    command->parse_complete_callback([&a] {
        try {
            check_study(a);
        } catch (const gptq::error& problem) {
            throw CLI::ValidationError("study", problem.what());
        }
    });
}

void add_allocate(CLI::App& app, allocate_arguments& a, std::function<void()>& chosen) {
    CLI::App* command = app.add_subcommand("allocate", "choose the bits of every layer from a study's layer errors");
    command->add_option("DIR", a.model, "folder of a study at depth layers")->required();
    add_common(*command, a, allocate, chosen);
    CLI::Option* bits =
        command->add_option("--bits-per-weight", a.bits_per_weight, "of the quantized layers, with scales and g_idx")
            ->check(above_zero());
    CLI::Option* size = command->add_option("--size", a.size, "of all tensors of the model, such as 4.2GB");
    CLI::Option* perplexity = command->add_option(
        "--perplexity", a.perplexity, "the least size that is predicted to be no further above float, such as +3%");
    bits->excludes(size)->excludes(perplexity);
    size->excludes(perplexity);
    command->add_option("--out", a.rules, "file of rules for gptq quantize --dynamic; must not exist yet")->required();
    command->add_option("--method", a.method, "whose layer errors count")
        ->check(CLI::IsMember({"rtn", "gptq", "best"}))
        ->capture_default_str();
    command->parse_complete_callback([bits, size, perplexity] {
        if (bits->count() + size->count() + perplexity->count() == 0)
            throw CLI::RequiredError("--bits-per-weight, --size or --perplexity");
    });
}

void add_bench(CLI::App& app, bench_arguments& a, std::function<void()>& chosen) {
    CLI::App* command = add_command(app, "bench", "tokens per second", a, bench, chosen);
    add_run_options(*command, a);
    command->add_option("--prompt", a.prompt, "tokens of the prompt")
        ->check(CLI::Range(std::size_t{1}, most_tokens))
        ->capture_default_str();
    command->add_option("-n,--tokens", a.tokens, "tokens to generate")
        ->check(CLI::Range(std::size_t{1}, most_tokens))
        ->capture_default_str();
}

int fail(const char* what) {
    std::string line = what;
    std::replace(line.begin(), line.end(), '\n', ' ');
    std::fprintf(stderr, "gptq: %s\n", gptq::printable(line, gptq::max_message_bytes).c_str());
    return 1;
}

/// The exit status of a command.
int run(const std::function<void()>& command) {
    try {
        catch_interrupts();
        command();
        flush_output();
        return 0;
    } catch (const std::bad_alloc&) {
        return fail("out of memory");
    } catch (const std::length_error&) {
        return fail("out of memory: a size that was asked for is too large");
    } catch (const std::exception& problem) {
        return fail(problem.what());
    }
}

/// Prints what --help and --version ask for.
int show(const CLI::App& app, const CLI::ParseError& request) {
    const int status = app.exit(request);
    return std::cout.flush() ? status : fail("standard output: cannot write");
}

}  // namespace

int main(int argc, char** argv) {
    choose_environment(argv);
    CLI::App app{"Quantizes language models with GPTQ, and runs them."};
    app.name("gptq");
    app.require_subcommand(1);
    app.set_version_flag("--version", "gptq " + std::string(gptq::version_string));

    std::function<void()> chosen;
    quantize_arguments quantize_args;
    prune_arguments prune_args;
    tune_arguments tune_args;
    finetune_arguments finetune_args;
    eval_arguments eval_args;
    diagnose_arguments diagnose_args;
    generate_arguments generate_args;
    common_arguments inspect_args;
    tokenize_arguments tokenize_args;
    merge_arguments merge_args;
    convert_arguments convert_args;
    study_arguments study_args;
    allocate_arguments allocate_args;
    bench_arguments bench_args;
    add_quantize(app, quantize_args, chosen);
    add_prune(app, prune_args, chosen);
    add_tune(app, tune_args, chosen);
    add_finetune(app, finetune_args, chosen);
    add_eval(app, eval_args, chosen);
    add_diagnose(app, diagnose_args, chosen);
    add_generate(app, generate_args, chosen);
    add_command(app, "inspect", "what MODEL is made of", inspect_args, inspect, chosen);
    add_tokenize(app, tokenize_args, chosen);
    add_merge(app, merge_args, chosen);
    add_convert(app, convert_args, chosen);
    add_study(app, study_args, chosen);
    add_allocate(app, allocate_args, chosen);
    add_bench(app, bench_args, chosen);

    try {
        app.parse(argc, argv);
    } catch (const CLI::ParseError& problem) {
        if (problem.get_exit_code() == 0) return show(app, problem);
        const std::string line = std::string(problem.what()) + " (gptq --help and gptq COMMAND --help say more)";
        fail(line.c_str());
        return 2;
    }
    const int status = run(chosen);
    end_ranks(status);
    return status;
}
