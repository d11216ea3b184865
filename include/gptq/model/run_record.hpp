// What a run of quantize_model keeps in OUT.partial: the codes of the blocks that are finished, and what was said about
// them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <unordered_set>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include <gptq/io/folder_writer.hpp>
#include <gptq/io/model_folder.hpp>
#include <gptq/io/quantization_config.hpp>
#include <gptq/io/run_folder.hpp>
#include <gptq/model/calibration.hpp>
#include <gptq/model/quantize_log.hpp>
#include <gptq/model/quantize_plan.hpp>
#include <gptq/model/scale_fold.hpp>
#include <gptq/xtensor/quantized.hpp>

namespace gptq::model {

/// Other tokens hardly have it.
std::string fingerprint_of(std::span<const std::int32_t> tokens);

/// Of the config, the headers, and the first numbers of every tensor, which are others after any training. Throws
/// io_error where the folder cannot be read.
std::string fingerprint_of(const io::model_folder& folder);

/// What differs, as "config/bits is 4 there and 3 here", for up to three values of two objects.
std::string difference_between(const nlohmann::ordered_json& there, const nlohmann::ordered_json& here);

/// What decides the bytes of a result: the checkpoint's description, the tokens, the source, and what computes
/// (`arithmetic`, any text). Equal for two runs that may go on with each other's blocks.
nlohmann::ordered_json run_description(const io::quantization_config& config, const token_windows& windows,
                                       const io::model_folder& source, const std::string& arithmetic);

/// Calls take_up(run.json) where `folder` has an unfinished run, which must be the one that `description` describes,
/// and empties the folder where it has none. Throws error, saying what differs, for another run, and format_error, with
/// the way out, where run.json or what take_up reads is damaged; with `restart` it discards either instead.
void take_up_run(const io::run_folder& folder, const nlohmann::ordered_json& description, bool restart,
                 const std::function<void(const nlohmann::ordered_json&)>& take_up);

/// What quantize_model says about some modules.
struct run_notes {
    std::vector<module_record> modules;
    std::vector<std::string> warnings;
    std::size_t experts_lacking = 0;  ///< inputs of experts that too few tokens came to, see lacks_tokens()
};

/// A layer of codes under its name in the files.
using named_layer = std::pair<std::string, quantized_layer>;

/// The finished blocks of a run, in their order from the first. The output layer, where it is quantized, is one more.
class run_record {
 public:
    /// Takes up what `folder` has of the run that `description` describes. Throws as take_up_run.
    run_record(io::run_folder& folder, nlohmann::ordered_json description, bool restart);

    /// How many blocks are finished.
    std::size_t finished() const { return finished_; }

    /// What was said about the finished blocks.
    const run_notes& notes() const { return notes_; }

    /// The codes of a module of a finished block. Throws what io::read_quantized throws.
    quantized_layer read(std::size_t block, const io::quantization_config& config, const std::string& module);

    /// All tensors of a finished block; valid until another block is asked for.
    const io::model_folder& piece(std::size_t block);

    /// The next block is finished, its layers being these, and its norms and biases, where scales were folded into
    /// them. When this returns, they are on the disk.
    void add(io::checkpoint_format format, const std::vector<named_layer>& layers, const run_notes& notes,
             const folded_tensors& folded = {});

    /// Appends the tensors of all finished blocks to the weights of a folder, and returns their names.
    std::unordered_set<std::string> copy_to(io::folder_writer& writer) const;

 private:
    void take_up(const nlohmann::ordered_json& state);

    io::run_folder& folder_;
    nlohmann::ordered_json description_;
    std::size_t finished_ = 0;
    run_notes notes_;
    std::optional<std::pair<std::size_t, io::model_folder>> open_;  // the block that was read last
};

}  // namespace gptq::model

#ifndef GPTQ_COMPILED
#include <gptq/model/impl/run_record.hpp>
#endif
