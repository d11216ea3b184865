// What the calibration tokens say about the layers that read one input: gathered once, used for each of them.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

#include <gptq/communicator.hpp>
#include <gptq/drift.hpp>
#include <gptq/factor.hpp>
#include <gptq/hessian.hpp>
#include <gptq/matrix_view.hpp>
#include <gptq/messages.hpp>
#include <gptq/model/backend.hpp>
#include <gptq/model/stages.hpp>

namespace gptq::model {

/// The factored Hessian of a stage's input.
template <class B>
using stage_factor = factored_hessian<solver_of<B>, inverse_free_path>;

/// What a stage's float inputs say.
template <class B>
using stage_drift = drift_statistics<solver_of<B>, inverse_free_path>;

/// The Hessian of a stage's inputs, its factorization, and what the float model's inputs beside them say.
template <class B>
struct stage_statistics {
    basic_hessian<solver_of<B>> H;
    std::optional<stage_factor<B>> factor;  ///< nothing if nobody asked for it
    std::optional<stage_drift<B>> drift;    ///< nothing without a float model
    std::size_t tokens = 0;                 ///< that the layers read
    bool lacks_tokens = false;              ///< they are those of an expert that too few tokens came to
};

/// The Hessian of what every expert of a block would read if all tokens came to it: the same for all of them, and made
/// when the first one asks for it.
template <class B>
using common_hessian = std::optional<basic_hessian<solver_of<B>>>;

/// An expert that fewer tokens than this come to, for each of its inputs, is quantized with the help of the others.
inline constexpr std::size_t enough_tokens_per_input = 4;

/// The weights of a stage's layers, [N, K] each, in the backend's memory.
using stage_weights = std::vector<matrix_view<const float>>;

/// How the calibration tokens are divided: every rank has some of them, in the order of the ranks.
struct token_division {
    communicator_ref ranks = {};
    /// Sums are made in the order of one process, rank after rank, and have its bytes; otherwise all ranks add at once.
    bool in_order = false;

    /// Calls add(), which adds this rank's tokens to some sums, and for_each_sum(combine) to have combine(sums) called for
    /// each of them.
    template <class Add, class ForEachSum>
    void gather(const Add& add, const ForEachSum& for_each_sum, const stage_weights& weights = {}) const {
        if (!in_order || ranks.alone()) add();
        if (ranks.alone()) return;
        if (!in_order) return for_each_sum([&](auto& sums) { sums.share(ranks, weights); });
        for (std::size_t r = 0; r < ranks.size(); ++r) {
            if (r == ranks.rank()) add();
            for_each_sum([&](auto& sums) { sums.pass_on(ranks, r, weights); });
        }
    }
};

namespace detail {

/// Rows of a chunk, one after the other.
template <class T>
paired_inputs<T> row_range(const paired_inputs<T>& all, std::size_t first, std::size_t last) {
    const auto rows = [first, last](auto m) { return m.rows == 0 ? m : m.block(first, last - first, 0, m.cols); };
    return {rows(all.inputs), rows(all.float_inputs), rows(all.states), rows(all.float_states)};
}

/// Rows of a chunk that are of tokens before `cut`, counted among all of the calibration.
template <class T>
std::size_t rows_before(const paired_inputs<T>& chunk, std::size_t cut) {
    if (cut <= chunk.first_token) return 0;
    const std::size_t tokens = cut - chunk.first_token;
    if (chunk.rows.empty()) return std::min(tokens, chunk.inputs.rows);
    const auto end = std::partition_point(chunk.rows.begin(), chunk.rows.end(), [tokens](std::int32_t row) {
        return static_cast<std::size_t>(row) < tokens;
    });
    return static_cast<std::size_t>(end - chunk.rows.begin());
}

/// Sums over some tokens in host memory, on their way between ranks.
struct moved_sums {
    matrix<float> H{0, 0};      ///< [K, K], the upper triangle
    matrix<float> drift{0, 0};  ///< [K, K] or [N, K]; none without a drift
    std::uint64_t samples = 0, drift_samples = 0;
    bool of_layer = false;  ///< the drift is of one layer

    std::array<std::uint64_t, 3> counts() const { return {samples, drift_samples, of_layer}; }
};

/// The mean over `samples` tokens becomes one over the tokens of all ranks.
inline void share_mean(const communicator_ref& ranks, matrix<float>& mean, std::uint64_t samples, std::uint64_t all) {
    const float share = all == 0 ? 0.0f : static_cast<float>(static_cast<double>(samples) / static_cast<double>(all));
    const std::span<float> numbers(mean.view().data, mean.rows() * mean.cols());
    for (float& x : numbers) x *= share;
    ranks.sum(numbers);
}

/// The sums over some tokens of a stage.
template <ModelBackend B>
class token_sums {
 public:
    using hessian = basic_hessian<solver_of<B>>;
    using drift_type = basic_drift<solver_of<B>>;

    token_sums(const B& backend, std::size_t features) : backend_(backend), H(features, backend.solver()) {}

    template <class T>
    void add(const paired_inputs<T>& tokens) {
        if (tokens.inputs.rows != 0) backend_.add_tokens(H, tokens.inputs);
    }

    /// The same, and the drift of the layers `weights`. Only a stage of one layer adds to states.
    template <class T>
    void add_with_drift(const paired_inputs<T>& tokens, const stage_weights& weights) {
        if (tokens.inputs.rows == 0) return;
        add(tokens);
        if (!drift && tokens.states.rows == 0) drift.emplace(tokens.inputs.cols, backend_.solver());
        if (!drift) drift.emplace(in_backend, weights.front(), backend_.solver());
        backend_.add_tokens(*drift, tokens.float_inputs, tokens.inputs, tokens.float_states, tokens.states);
    }

    /// The sums over the tokens of all ranks.
    void share(const communicator_ref& ranks, const stage_weights& weights) {
        moved_sums sums = to_host();
        message_writer mine;
        mine.put(sums.counts());
        std::uint64_t samples = 0, drift_samples = 0;
        for (const auto& message : ranks.exchange(mine.bytes())) {
            const auto c = message_reader(message).get<std::array<std::uint64_t, 3>>();
            samples += c[0];
            drift_samples += c[1];
            sums.of_layer = sums.of_layer || c[2] != 0;
        }
        if (drift_samples != 0 && !drift) sums.drift = room_for_drift(sums.of_layer, weights);
        share_mean(ranks, sums.H, sums.samples, samples);
        if (drift_samples != 0) share_mean(ranks, sums.drift, sums.drift_samples, drift_samples);
        sums.samples = samples;
        sums.drift_samples = drift_samples;
        from_host(sums, weights);
    }

    /// Every rank gets the sums of rank `from`.
    void pass_on(const communicator_ref& ranks, std::size_t from, const stage_weights& weights) {
        message_writer mine;
        if (ranks.rank() == from) {
            const moved_sums sums = to_host();
            mine.put(sums.counts());
            mine.put_list(numbers_of(sums.H));
            mine.put_list(numbers_of(sums.drift));
        }
        const rank_messages given = ranks.exchange(mine.bytes());
        if (ranks.rank() == from) return;
        message_reader theirs(given.at(from));
        const auto counts = theirs.get<std::array<std::uint64_t, 3>>();
        moved_sums sums{matrix<float>(H.in_features(), H.in_features()), {0, 0}, counts[0], counts[1], counts[2] != 0};
        put_numbers(theirs.get_list<float>(), sums.H);
        if (sums.drift_samples != 0) sums.drift = room_for_drift(sums.of_layer, weights);
        put_numbers(theirs.get_list<float>(), sums.drift);
        from_host(sums, weights);
    }

 private:
    static std::span<const float> numbers_of(const matrix<float>& m) { return {m.view().data, m.rows() * m.cols()}; }
    static void put_numbers(const std::vector<float>& numbers, matrix<float>& m) {
        if (numbers.size() != m.rows() * m.cols()) throw communication_error("ranks quantize layers of other shapes");
        std::copy(numbers.begin(), numbers.end(), m.view().data);
    }

    matrix<float> room_for_drift(bool of_layer, const stage_weights& weights) const {
        return matrix<float>(of_layer ? weights.front().rows : H.in_features(), H.in_features());
    }

    moved_sums to_host() const {
        const auto copy = [this](matrix_view<const float> m) {
            matrix<float> host(m.rows, m.cols);
            backend_.solver().download(m, host.view());
            return host;
        };
        moved_sums sums{copy(H.upper()), {0, 0}, H.samples(), 0, false};
        for (std::size_t r = 1; r < sums.H.rows(); ++r)
            std::fill_n(sums.H.view().row(r).data(), r, 0.0f);  // unspecified, and may be no number
        if (!drift) return sums;
        sums.drift = copy(drift->mean());
        sums.drift_samples = drift->samples();
        sums.of_layer = drift->of_layer();
        return sums;
    }

    void from_host(const moved_sums& sums, const stage_weights& weights) {
        H = hessian::of(sums.H.view(), sums.samples, backend_.solver());
        if (sums.drift_samples == 0) return;
        if (!drift && sums.of_layer) drift.emplace(in_backend, weights.front(), backend_.solver());
        if (!drift) drift.emplace(H.in_features(), backend_.solver());
        drift->take(sums.drift.view(), sums.drift_samples);
    }

    const B& backend_;

 public:
    hessian H;
    std::optional<drift_type> drift;  ///< nothing where no token came
};

/// The Hessian of an expert's own tokens, `own`, and of as many others as it lacks: all tokens of the calibration,
/// counted as that many. The more evidence of its own an expert has, the less the others weigh.
template <ModelBackend B, class T>
void blend(const B& backend, const stage_inputs<T>& x, basic_hessian<solver_of<B>>& own, common_hessian<B>& common,
           const token_division& division) {
    const std::size_t lacking = enough_tokens_per_input * x.features - own.samples();
    const auto of_all_tokens = [&] {
        token_sums<B> sums(backend, x.features);
        division.gather(
            [&] {
                x.for_each([&](const paired_inputs<T>& chunk) {
                    chunk.for_all_tokens([&](matrix_view<const T> some) { backend.add_tokens(sums.H, some); });
                });
            },
            [&](const auto& combine) { combine(sums); });
        return std::move(sums.H);
    };
    if (!x.same_for_experts) return own.merge(of_all_tokens(), lacking);
    if (!common) common.emplace(of_all_tokens());
    own.merge(*common, lacking);
}

/// The share of the calibration tokens, from the last ones, that a correction of drift has to prove itself on.
inline std::size_t held_out_tokens(std::size_t tokens) { return tokens / 4; }

/// The dampings that a correction of drift may be fitted with. A correction is a regression on as many inputs as the
/// layer has, and the best damping for that is often far more than the solver wants, and another for every stage.
inline constexpr std::array<double, 7> drift_dampings{0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0};

/// Judged by about 64 rows of each layer, which is enough to tell dampings apart.
template <class Drift>
double sampled_saving(const stage_weights& weights, const Drift& drift) {
    double saving = 0.0;
    for (const matrix_view<const float> W : weights) {
        const std::size_t every = std::max<std::size_t>(1, W.rows / 64);
        saving += static_cast<double>(every) * drift_saving(in_backend, W, drift, every);
    }
    return saving;
}

/// The drift with the factor, of those with drift_dampings, whose correction does most for the tokens held out, found
/// by steps from the middle one for as long as each helps; nothing if no factorization succeeds. A damping too small
/// does worse than the next, and so does one too large: few stages have a better one beyond a worse one. Takes what
/// `fit` and `held` have, but for fit's Hessian, if it finds one.
template <ModelBackend B, class Factorize>
std::optional<stage_drift<B>> fit_drift(token_sums<B>& fit, token_sums<B>& held, const stage_weights& weights,
                                        const Factorize& factorize) {
    std::optional<stage_drift<B>> drift;
    double most = 0.0;
    const auto improves = [&](double damping) {
        stage_factor<B> factor = factorize(fit.H, damping);
        if (!factor.positive_definite || factor.failed_factorizations > 0) return false;
        if (!drift) {
            drift.emplace(
                stage_drift<B>{std::move(*fit.drift), std::move(*held.drift), std::move(factor), std::move(held.H)});
            most = sampled_saving(weights, *drift);
            return true;
        }
        std::swap(drift->fit_factor, factor);
        const double saving = sampled_saving(weights, *drift);
        const bool better = saving > most;
        if (better)
            most = saving;
        else
            std::swap(drift->fit_factor, factor);
        return better;
    };
    constexpr std::size_t middle = drift_dampings.size() / 2;
    std::size_t up = middle;
    while (up < drift_dampings.size() && (improves(drift_dampings[up]) || !drift)) ++up;
    if (up > middle + 1) return drift;
    for (std::size_t down = middle; down > 0 && improves(drift_dampings[down - 1]);) --down;
    return drift;
}

}  // namespace detail

/// Gathers what is asked for. `factorize(H)` turns a Hessian into a stage_factor for the solver,
/// `factorize(H, damp_percent)` one with that damping; an empty one is not called. `x` is beside a float model if drift
/// is to be corrected; then cross products of its inputs cost twice what the Hessian does, or less, and there are 3
/// to 5 more factorizations, of the part of the tokens that the correction is fitted to: the one whose correction does
/// most for the others is kept. An expert with few tokens has its Hessian blended with that of all tokens, and no drift
/// corrected; `common` is kept from expert to expert of a block. Where other ranks have tokens, all of them call it, and it
/// gathers what all tokens say. Throws non_finite_error for inputs that are NaN or infinite, and communication_error.
template <ModelBackend B, class Factorize>
stage_statistics<B> gather_statistics(const B& backend, const stage_inputs<typename B::activation>& x,
                                      const stage_weights& weights, bool want_factor, const Factorize& factorize,
                                      common_hessian<B>& common, const token_division& division = {}) {
    using chunk = paired_inputs<typename B::activation>;
    const bool corrects = want_factor && x.beside_float;
    const std::size_t cut = x.tokens - (corrects ? detail::held_out_tokens(x.tokens) : 0);
    detail::token_sums<B> fit(backend, x.features);
    std::optional<detail::token_sums<B>> held;
    if (cut < x.tokens) held.emplace(backend, x.features);
    const auto add = [&](const chunk& tokens) {
        if (!held) return fit.add(tokens);
        const std::size_t before = detail::rows_before(tokens, cut);
        fit.add_with_drift(detail::row_range(tokens, 0, before), weights);
        held->add_with_drift(detail::row_range(tokens, before, tokens.inputs.rows), weights);
    };
    const auto for_each_sum = [&](const auto& combine) {
        combine(fit);
        if (held) combine(*held);
    };
    division.gather([&] { x.for_each(add); }, for_each_sum, weights);
    const std::size_t count = fit.H.samples() + (held ? held->H.samples() : 0);
    const bool lacking = x.of_expert && count < enough_tokens_per_input * x.features;
    std::optional<stage_drift<B>> drift;
    if (held && !lacking && fit.drift && held->drift) drift = detail::fit_drift(fit, *held, weights, factorize);
    if (held) fit.H.merge(drift ? drift->held_hessian : held->H);
    if (lacking) detail::blend(backend, x, fit.H, common, division);
    stage_statistics<B> found{std::move(fit.H), std::nullopt, std::move(drift), count, lacking};
    if (want_factor) found.factor.emplace(factorize(found.H));
    return found;
}

}  // namespace gptq::model
