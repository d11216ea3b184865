// The subcommands of the program: their arguments, as main.cpp fills them in, and the functions that run them.
//
// Each function prints its result on standard output, progress on standard error, and throws gptq::error (or whatever
// the standard library throws) when something is wrong; main.cpp turns that into one line and an exit status.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include <gptq/model/sampling.hpp>
#include <gptq/settings.hpp>

namespace program {

/// What every subcommand has.
struct common_arguments {
    static constexpr bool computes = false;  ///< multiplies large matrices

    std::string model;        ///< a Hugging Face folder, or a GGUF file
    bool json = false;        ///< one JSON object on standard output, nothing else there
    std::size_t threads = 0;  ///< 0 leaves the choice to the BLAS library
};

/// What those that compute with a model have.
struct compute_arguments : common_arguments {
    static constexpr bool computes = true;

    std::string device = "cpu";          ///< cpu, cuda or cuda:N
    std::string compute_dtype = "auto";  ///< on a GPU: float, half, bfloat16, or auto: as the model is stored
    bool reproducible = false;           ///< sums in one order everywhere; `quantize` and `eval` only
};

/// What those that read a calibration text have.
struct calibration_arguments {
    std::string calib;
    std::string sampling = "spread";  ///< of the windows: spread or first
    bool special_tokens = true;       ///< those that the tokenizer adds to a text
    std::size_t nsamples = 128;
    std::size_t seqlen = 0;  ///< 0: 2048, or what the model was made for if less
};

struct quantize_arguments : compute_arguments, calibration_arguments {
    std::string out;
    gptq::quantize_settings settings;
    bool best = false;      ///< settings::best() for those that are not given
    std::size_t tuned = 0;  ///< steps of tuning after what best does; 0: neither
    bool lm_head = false;
    bool restart = false;       ///< discard what an unfinished run has left
    std::string format;         ///< empty: gptq for symmetric grids, gptq_v2 for asymmetric ones
    std::string dynamic_rules;  ///< path of a JSON file, or empty
    std::string hessians;       ///< folder of them, in place of a text; or empty
    std::uint64_t memory = 0;   ///< bytes that the work may take; 0: what the system has free
    std::string type;           ///< of the blocks of a GGUF file; empty: OUT is a folder
    std::string base;           ///< with type: the float GGUF file; empty: the model is one
    std::string rest = "keep";  ///< with type, as in convert_arguments
};
void quantize(const quantize_arguments& arguments);

/// The text is that of --text.
struct diagnose_arguments : common_arguments, calibration_arguments {
    static constexpr bool computes = true;
    diagnose_arguments() {
        nsamples = 8;
        seqlen = 128;
    }

    std::string reference;  ///< the float model
};
void diagnose(const diagnose_arguments& arguments);

struct prune_arguments : common_arguments, calibration_arguments {
    static constexpr bool computes = true;

    std::string out;
    std::string sparsity;              ///< a share of the weights, or "2:4"
    std::string method = "sparsegpt";  ///< or magnitude
};
void prune(const prune_arguments& arguments);

struct tune_arguments : common_arguments, calibration_arguments {
    static constexpr bool computes = true;
    tune_arguments() { seqlen = 256; }

    std::string reference;  ///< the float model
    std::string out;
    std::size_t steps = 300;
    std::optional<double> rate;  ///< nothing: by the bits of each layer
    bool norms = false;
    bool restart = false;  ///< discard what an unfinished run has left
};
void tune(const tune_arguments& arguments);

struct finetune_arguments : common_arguments, calibration_arguments {
    static constexpr bool computes = true;
    finetune_arguments() { seqlen = 256; }

    std::string out;
    std::size_t rank = 16;
    double alpha = 32.0;
    std::size_t steps = 300;
    double rate = 2e-4;
    std::vector<std::string> targets;  ///< none: all layers of the blocks
    std::uint64_t seed = 0;
    std::string start;  ///< an adapter to go on from; empty: none
};
void finetune(const finetune_arguments& arguments);

/// What those that run a model have.
struct run_arguments : compute_arguments {
    std::string activation = "int16";   ///< exact, int16 or int8
    bool head_in_8_bits = true;         ///< of a quantized model
    std::vector<std::string> adapters;  ///< FOLDER or FOLDER:WEIGHT
};

struct eval_arguments : run_arguments {
    eval_arguments() {
        activation = "exact";
        head_in_8_bits = false;
    }
    std::vector<std::string> texts;  ///< paths, at least one
    std::size_t seqlen = 0;          ///< 0: 2048, or what the model was made for if less
    std::size_t max_tokens = 0;      ///< 0: all of them
    bool special_tokens = true;      ///< those that the tokenizer adds to a text
    std::vector<std::string> dump;   ///< names of what is computed on the way
    std::string dump_to;             ///< file to write that to
    std::string baseline;            ///< the model that this one was made from, to compare with; or empty
};
void eval(const eval_arguments& arguments);

struct generate_arguments : run_arguments {
    std::vector<std::string> prompts;  ///< at least one
    std::size_t tokens = 64;
    gptq::model::sampling_options sampling;
    std::uint64_t seed = 0;          ///< of each prompt
    std::vector<std::string> stops;  ///< texts that end the generation
    bool chat = false;               ///< prompts are messages to put into the model's chat template
    std::string system;              ///< with chat
};
void generate(const generate_arguments& arguments);

void inspect(const common_arguments& arguments);

struct tokenize_arguments : common_arguments {
    std::string text;
};
void tokenize(const tokenize_arguments& arguments);

struct merge_arguments : common_arguments {
    std::string adapter;  ///< FOLDER or FOLDER:WEIGHT
    std::string out;
};
void merge(const merge_arguments& arguments);

struct convert_arguments : common_arguments {
    std::string out;
    std::string format;
    std::string base;           ///< the float GGUF file, with format gguf
    std::string rest = "keep";  ///< or q8_0: of the matrices that are not quantized, with format gguf
};
void convert(const convert_arguments& arguments);

/// The axes are lists with commas. The length of windows is that of texts to score, too.
struct study_arguments : common_arguments, calibration_arguments {
    std::string out;
    std::string methods = "gptq", bits = "4", group_sizes = "128", grids = "sym", orders = "gar";
    gptq::quantize_settings settings;  ///< those that are no axes
    std::string format;                ///< empty: gptq for symmetric grids, gptq_v2 for asymmetric ones
    std::string plan;                  ///< path of a JSON file in place of the axes, or empty
    std::string depth = "model";       ///< or layers
    std::vector<std::string> texts;
    std::size_t max_tokens = 0;      ///< of each text to score; 0: all of them
    std::size_t jobs = 1;            ///< processes
    bool worker = false;             ///< one of the processes that another one started
    bool keep = false;               ///< the checkpoints
    std::size_t sensitivity = 1024;  ///< tokens, at depth layers; 0: none are measured
};
void study(const study_arguments& arguments);

/// Throws gptq::option_error for axes that no study can have.
void check_study(const study_arguments& arguments);

struct allocate_arguments : common_arguments {
    std::string rules;             ///< the file to write
    double bits_per_weight = 0.0;  ///< of the quantized layers; 0: another one says it
    std::string size;              ///< of the whole model, such as 4.2GB; or empty
    std::string perplexity;        ///< how far above float it may be as predicted, such as +3%; or empty
    std::string method = "gptq";
};
void allocate(const allocate_arguments& arguments);

struct bench_arguments : run_arguments {
    std::size_t prompt = 128;
    std::size_t tokens = 64;
};
void bench(const bench_arguments& arguments);

}  // namespace program
