// The states of all calibration windows between the blocks of a model, some windows at a time, in memory or in a file.
#pragma once

#include <algorithm>
#include <cstddef>
#include <limits>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include <gptq/error.hpp>
#include <gptq/held_layer.hpp>
#include <gptq/io/file.hpp>
#include <gptq/matrix_view.hpp>
#include <gptq/model/backend.hpp>
#include <gptq/model/buffers.hpp>
#include <gptq/model/calibration.hpp>
#include <gptq/model/embedding.hpp>
#include <gptq/model/model_config.hpp>

namespace gptq::model {

/// Windows are computed, and their tokens added to a Hessian, in chunks of at most so many tokens, but for one window.
/// No budget changes the chunks, so that none changes the result.
template <ModelBackend B>
inline constexpr std::size_t chunk_tokens = std::max<std::size_t>(2048, B::branch_tokens);

/// Windows of a chunk. Throws shape_error for tokens that make no windows.
template <ModelBackend B>
std::size_t windows_of_chunk(const token_windows& windows) {
    if (windows.length == 0 || windows.tokens.size() % windows.length != 0)
        throw shape_error(std::to_string(windows.tokens.size()) + " tokens do not make whole windows of " +
                          std::to_string(windows.length));
    return std::min(std::max<std::size_t>(1, windows.count()),
                    std::max<std::size_t>(1, chunk_tokens<B> / windows.length));
}

/// Which chunks are where. The first `kept` ones stay in memory with all that is computed between the layers of a
/// block. The next `held` ones stay there as states, and the others in a file: what their layers read is computed again
/// for each site, from the start of its step.
struct chunk_places {
    std::size_t kept = std::numeric_limits<std::size_t>::max();
    std::size_t held = 0;
};

/// Chunks [first, last) of the calibration's, as far as it has them.
struct chunk_range {
    std::size_t first = 0, last = std::numeric_limits<std::size_t>::max();
};

/// The part of `chunks` chunks that rank `rank` of `size` computes.
constexpr chunk_range chunks_of_rank(std::size_t chunks, std::size_t rank, std::size_t size) {
    return {chunks * rank / size, chunks * (rank + 1) / size};
}

/// The states of the model at hand, and where a float model runs beside it, of that one.
template <ModelBackend B>
class calibration_states {
 public:
    /// The states that the first block reads, of the chunks of `share`; what is said of chunks is said of these. `file`
    /// takes those that are not in memory, if there are any. The backend and the config must outlive it. Throws as
    /// embedding::look_up, and io_error for a full disk.
    calibration_states(const B& backend, const model_config& config, const embedding<B>& tables,
                       const token_windows& windows, bool beside_float, chunk_places places = {},
                       std::optional<io::output_file> file = std::nullopt, chunk_range share = {})
        : backend_(backend),
          config_(config),
          places_(places),
          file_(std::move(file)),
          window_length_(windows.length),
          tokens_(windows.tokens.size()),
          models_(beside_float ? 2 : 1) {
        const std::size_t step = windows_of_chunk<B>(windows) * windows.length;
        for (std::size_t first = 0, c = 0; first < tokens_; first += step, ++c)
            if (c >= share.first && c < share.last) chunks_.push_back({first, std::min(step, tokens_ - first), {}});
        for (std::size_t c = 0; c < chunks_.size(); ++c) {
            const auto ids = std::span(windows.tokens).subspan(chunks_[c].first, chunks_[c].tokens);
            for (std::size_t m = 0; m < models_; ++m) {
                tables.look_up(backend_, config_, ids, window_length_, 0, room_for(c, m));
                save(c, m);
            }
        }
    }

    std::size_t window_length() const { return window_length_; }
    std::size_t tokens() const { return tokens_; }  ///< of the whole calibration
    bool beside_float() const { return models_ == 2; }
    std::size_t chunks() const { return chunks_.size(); }
    std::size_t first_token(std::size_t chunk) const { return chunks_[chunk].first; }
    bool is_kept(std::size_t chunk) const { return chunk < places_.kept; }

    /// The states of a chunk in model 0, the one at hand, or 1; valid until those of another chunk are asked for.
    ///                                                                                              [tokens, hidden_size]
    matrix_view<float> states(std::size_t chunk, std::size_t model) {
        const matrix_view<float> to = room_for(chunk, model);
        if (!is_in_memory(chunk)) read(slot(chunk, model, false), to);
        return to;
    }

    /// What states() showed was changed, and stays so.
    void save(std::size_t chunk, std::size_t model) {
        if (!is_in_memory(chunk)) write(slot(chunk, model, false), room_for(chunk, model));
    }

    /// The states are kept as they are now, for entered().
    void enter(std::size_t chunk, std::size_t model) {
        const matrix_view<const float> from = room_for(chunk, model);
        if (is_in_memory(chunk))
            copy(from, entered_room(chunk, model));
        else
            write(slot(chunk, model, true), from);
    }

    /// What enter() kept; valid likewise.
    matrix_view<float> entered(std::size_t chunk, std::size_t model) {
        const matrix_view<float> to = entered_room(chunk, model);
        if (!is_in_memory(chunk)) read(slot(chunk, model, true), to);
        return to;
    }

    /// Memory for what a chunk's layers read: of its own, or shared by those that keep nothing.
    block_buffers<B>& buffers(std::size_t chunk, std::size_t model) {
        return memory_of(chunk, is_kept(chunk), model).buffers;
    }
    block_scratch<B>& scratch() { return scratch_; }

 private:
    struct chunk_memory {
        room_for_one<B, float> states, entered;
        block_buffers<B> buffers;
    };
    struct placed_chunk {
        std::size_t first = 0, tokens = 0;
        chunk_memory memory[2];
    };

    static constexpr std::size_t rows_at_once = 256;  // that pass through host memory on the way to and from the file

    bool is_in_memory(std::size_t chunk) const {
        return places_.held >= chunks_.size() || chunk < std::min(places_.kept, chunks_.size()) + places_.held;
    }
    chunk_memory& memory_of(std::size_t chunk, bool own, std::size_t model) {
        return own ? chunks_[chunk].memory[model] : shared_[model];
    }
    matrix_view<float> room_for(std::size_t chunk, std::size_t model) {
        return memory_of(chunk, is_in_memory(chunk), model)
            .states.shaped(backend_, chunks_[chunk].tokens, config_.hidden_size);
    }
    matrix_view<float> entered_room(std::size_t chunk, std::size_t model) {
        return memory_of(chunk, is_in_memory(chunk), model)
            .entered.shaped(backend_, chunks_[chunk].tokens, config_.hidden_size);
    }

    void copy(matrix_view<const float> from, matrix_view<float> to) const {
        backend_.solver().for_each_row(to.rows, gptq::detail::copy_row{from, to});
    }

    /// Where in the file the states of a chunk begin, in bytes.
    std::size_t slot(std::size_t chunk, std::size_t model, bool entered) const {
        const std::size_t matrices = (entered ? models_ : 0) + model;
        const std::size_t first = chunks_.front().first, all = chunks_.back().first + chunks_.back().tokens - first;
        return (matrices * all + chunks_[chunk].first - first) * config_.hidden_size * sizeof(float);
    }

    /// f(rows of m, host memory for them, where they are in the file).
    template <class M, class F>
    void by_pieces(M m, std::size_t offset, const F& f) const {
        matrix<float> host(std::min(rows_at_once, m.rows), m.cols);
        for (std::size_t first = 0; first < m.rows; first += rows_at_once) {
            const std::size_t count = std::min(rows_at_once, m.rows - first);
            f(m.block(first, count, 0, m.cols), host.view().block(0, count, 0, m.cols),
              offset + first * m.cols * sizeof(float));
        }
    }
    static std::span<float> numbers(matrix_view<float> host) { return {host.data, host.rows * host.cols}; }

    void write(std::size_t offset, matrix_view<const float> from) {
        by_pieces(from, offset, [this](matrix_view<const float> rows, matrix_view<float> host, std::size_t at) {
            backend_.read(rows, host);
            file_.value().write_at(at, std::as_bytes(numbers(host)));
        });
    }
    void read(std::size_t offset, matrix_view<float> to) const {
        by_pieces(to, offset, [this](matrix_view<float> rows, matrix_view<float> host, std::size_t at) {
            file_.value().read_at(at, std::as_writable_bytes(numbers(host)));
            const auto moved = backend_.upload(host);
            copy(moved.view(), rows);
        });
    }

    const B& backend_;
    const model_config& config_;
    chunk_places places_;
    std::optional<io::output_file> file_;
    std::size_t window_length_, tokens_, models_;
    std::vector<placed_chunk> chunks_;
    chunk_memory shared_[2];  // of those that are not in memory, and buffers of those that are not kept
    block_scratch<B> scratch_;
};

}  // namespace gptq::model
