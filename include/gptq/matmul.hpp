// Multiplying by a quantized layer: prepare once, then Y = X Wq' for any number of rows.
//
// prepare lays the codes out for the kernels (kernels/kernel.hpp); a product holds its inputs as the kernels want them,
// then runs one kernel over all panels of output features and blocks of rows. Which instruction set that is for is
// decided at run time.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <type_traits>
#include <utility>

#include <gptq/activation.hpp>
#include <gptq/error.hpp>
#include <gptq/half.hpp>
#include <gptq/kernels/dispatch.hpp>
#include <gptq/kernels/isa.hpp>
#include <gptq/kernels/kernel.hpp>
#include <gptq/kernels/leveled_layer.hpp>
#include <gptq/kernels/panels.hpp>
#include <gptq/kernels/threads.hpp>
#include <gptq/matrix_view.hpp>
#include <gptq/quantized.hpp>
#include <gptq/weight_memory.hpp>

namespace gptq {

/// How a product is computed; the result does not depend on it, up to rounding.
struct matmul_options {
    std::size_t threads = 0;        ///< 0: as many as OpenMP is set to. Without OpenMP there is one
    isa instructions = best_isa();  ///< which kernels multiply

    /// How many threads a product of so many multiplications takes: one where starting others would take longer.
    std::size_t threads_for(std::size_t multiplications) const {
        constexpr std::size_t worth_starting = std::size_t{1} << 17;
        if (multiplications < worth_starting) return 1;
        return threads != 0 ? threads : kernels::default_threads();
    }
};

/// Epilogue of matmul that changes nothing. An epilogue is a function of one output, its row and its output feature;
/// its result is what is stored. It may run concurrently.
struct no_epilogue {
    float operator()(float output, std::size_t /*row*/, std::size_t /*out_feature*/) const noexcept { return output; }
};

/// Adds a bias [N].
struct add_bias {
    std::span<const float> bias;  ///< [out_features]
    float operator()(float output, std::size_t /*row*/, std::size_t out_feature) const noexcept {
        return output + bias[out_feature];
    }
};

namespace detail {

/// A buffer whose elements are not set.
template <class T>
std::unique_ptr<T[]> uninitialized(std::size_t size) {
    return std::make_unique_for_overwrite<T[]>(size);
}

/// The inputs of a product as a kernel takes them.
class held_rows {
 public:
    /// Holds X [T, K], float, half or bfloat16, in the given order.
    template <class T>
    held_rows(const kernels::kernel& kernel, const kernels::feature_order& features, int levels, matrix_view<const T> X,
              std::size_t threads)
        : hold_(X.rows == 1 ? kernel.hold_alone : kernel.hold),
          features_(&features),
          levels_(levels),
          rows_(padded(X.rows)),
          tile_rows_(kernel.tile_rows),
          segments_(features.segments().size()),
          row_words_(features.runs() * kernel.words_per_run),
          words_(uninitialized<std::uint32_t>(rows_ * row_words_)),
          scales_(uninitialized<float>(rows_ * segments_)),
          sums_(uninitialized<std::uint32_t>(rows_ * segments_)) {
        const std::size_t large = tile_rows_, tiles = rows_ / large;
        kernels::in_parallel(tiles, threads, [&](std::size_t first, std::size_t last) {
            for (std::size_t i = first; i < last; ++i) hold_tile(kernel, X, i * large, large);
        });
        const std::size_t rest = std::min(rows_, kernels::small_tile);
        for (std::size_t row = tiles * large; row < rows_; row += rest) hold_tile(kernel, X, row, rest);
    }

    /// Whether a layer with such a kernel would hold the same inputs in the same way.
    bool serve(const kernels::kernel& kernel, const kernels::feature_order& features, int levels) const {
        return (rows_ == 1 ? kernel.hold_alone : kernel.hold) == hold_ && kernel.tile_rows == tile_rows_ &&
               levels == levels_ && features.takes_as(*features_);
    }

    /// As many rows as a core's own cache holds while panel after panel is multiplied by them.
    std::size_t block_rows() const {
        constexpr std::size_t cache_words = (std::size_t{1} << 20) / sizeof(std::uint32_t);
        return std::clamp(cache_words / row_words_, tile_rows_, kernels::call_rows) / tile_rows_ * tile_rows_;
    }

    /// `count` rows, or as many as there are, from `first` on, where a block begins.
    kernels::rows_view block(std::size_t first, std::size_t count) const {
        return {std::min(count, rows_ - first),    words_.get() + first * row_words_, row_words_, segments_,
                scales_.get() + first * segments_, sums_.get() + first * segments_};
    }

 private:
    static std::size_t padded(std::size_t rows) {
        constexpr std::size_t multiple = kernels::small_tile;
        return rows == 1 ? 1 : (rows + multiple - 1) / multiple * multiple;
    }

    /// The tile of rows [row, row + height); rows that X does not have are zeros.
    template <class T>
    void hold_tile(const kernels::kernel& kernel, matrix_view<const T> X, std::size_t row, std::size_t height) {
        std::array<std::uint32_t, kernels::segment_runs * kernels::run_features> side_by_side;
        std::array<float, kernels::segment_runs * kernels::run_features> gathered;
        std::uint32_t* words = words_.get() + row * row_words_;
        features_->for_each_segment([&](std::size_t s, std::span<const std::size_t> of_segment) {
            const std::size_t runs = features_->segments()[s].runs, count = runs * kernel.words_per_run;
            for (std::size_t r = 0; r < height; ++r) {
                const auto x = row + r < X.rows ? X.row(row + r) : std::span<const T>();
                const float* inputs = gather(x, of_segment, features_->contiguous(s), gathered);
                const std::size_t at = row * segments_ + s * height + r;
                std::uint32_t* held = height == 1 ? words : side_by_side.data();
                hold_(inputs, runs, static_cast<float>(levels_), held, &scales_[at], &sums_[at]);
                if (height == 1) continue;
                for (std::size_t i = 0; i < count; ++i) words[i * height + r] = held[i];
            }
            words += count * height;
        });
    }

    /// The inputs of a segment, zeros for an empty row x: in `room` if they are not where they are needed already.
    template <class T>
    static const float* gather(std::span<const T> x, std::span<const std::size_t> features, bool contiguous,
                               std::span<float> room) {
        if constexpr (std::is_same_v<T, float>)
            if (contiguous && !x.empty()) return &x[features.front()];
        std::fill(room.begin(), room.end(), 0.0f);
        if (!x.empty())
            for (std::size_t i = 0; i < features.size(); ++i) room[i] = to_float(x[features[i]]);
        return room.data();
    }

    decltype(kernels::kernel::hold) hold_;
    const kernels::feature_order* features_;
    int levels_;
    std::size_t rows_;  // with those added
    std::size_t tile_rows_, segments_, row_words_;
    std::unique_ptr<std::uint32_t[]> words_;  // [rows, row_words], in tiles
    std::unique_ptr<float[]> scales_;         // [rows, S], in tiles
    std::unique_ptr<std::uint32_t[]> sums_;   // [rows, S], in tiles
};

}  // namespace detail

/// A product with a quantized layer whose inputs are held already. count() pieces of work are left, which any threads
/// may do in any order: kernels::run_jobs does the pieces of one or several products. The layer and Y must outlive this
/// object, and the layer must outlive every product that is begun beside this one.
template <class U, class Epilogue = no_epilogue>
class begun_product {
 public:
    begun_product(const kernels::panels& panels, const kernels::feature_order& features, const kernels::kernel& kernel,
                  std::shared_ptr<const detail::held_rows> inputs, matrix_view<U> Y, const Epilogue& epilogue)
        : panels_(&panels),
          features_(&features),
          kernel_(kernel),
          inputs_(std::move(inputs)),
          block_rows_(inputs_->block_rows()),
          Y_(Y),
          epilogue_(epilogue) {}

    std::size_t count() const { return (Y_.rows + block_rows_ - 1) / block_rows_ * panels_->count(); }

    /// How many multiplications the product takes.
    std::size_t work() const { return Y_.rows * Y_.cols * features_->size(); }

    const std::shared_ptr<const detail::held_rows>& inputs() const { return inputs_; }

    /// Does the pieces [first, last): panel after panel for one block of rows, which stays in the cache, then the next
    /// block.
    void operator()(std::size_t first, std::size_t last) const {
        for (std::size_t i = first; i < last; ++i) {
            const std::size_t row = i / panels_->count() * block_rows_;
            multiply_panel(inputs_->block(row, block_rows_), row, i % panels_->count());
        }
    }

 private:
    void multiply_panel(const kernels::rows_view& inputs, std::size_t row, std::size_t panel) const {
        alignas(64) std::array<float, kernels::call_rows * kernels::panel_width> sums;
        kernel_.multiply(panels_->view(panel, features_->segments()), inputs, sums.data());
        const std::size_t n = panel * kernels::panel_width, width = std::min(kernels::panel_width, Y_.cols - n);
        const std::size_t last = std::min(row + inputs.rows, Y_.rows);
        for (const float* sum = sums.data(); row < last; ++row, sum += kernels::panel_width)
            for (std::size_t i = 0; i < width; ++i) Y_(row, n + i) = narrow<U>(epilogue_(sum[i], row, n + i));
    }

    const kernels::panels* panels_;
    const kernels::feature_order* features_;
    kernels::kernel kernel_;
    std::shared_ptr<const detail::held_rows> inputs_;
    std::size_t block_rows_;
    matrix_view<U> Y_;
    Epilogue epilogue_;
};

/// What the compiler knows of a layer's grid: its number of bits, and whether it is affine.
template <int Bits, bool Affine>
struct known_grid {};

/// A quantized layer made ready for multiplication by inputs that are held as A.
template <Activation A>
class prepared {
 public:
    /// q: a layer of codes below 2^bits, 2 <= bits <= 8, and any levels, its g_idx in any order. Levels that are no
    /// whole numbers are multiplied as floats, also by inputs that A rounds. Layers that are used one after the other
    /// share one `memory`, which makes products of one row faster; without it, the layer has memory of its own. Throws
    /// shape_error where g_idx names a group that has no scale or the parts of q do not fit together, unsupported_error
    /// for other numbers of bits.
    prepared(const_quantized_view q, int bits, weight_memory* memory = nullptr)
        : prepared(
              layer(checked(q), bits, integers),
              [](const layer& of) { return kernels::find_family<held>(of.bits(), of.levels()); }, memory) {}

    /// The same for a grid that the compiler knows, which compiles the kernels for no other. Throws unsupported_error
    /// where q has levels although the grid is affine.
    template <int Bits, bool Affine>
    prepared(const_quantized_view q, known_grid<Bits, Affine>, weight_memory* memory = nullptr)
        : prepared(layer(checked(q), Bits, integers), family_for<Bits, Affine>, memory) {}

    /// The same for an affine layer with codes that are unpacked a few output features at a time: see kernels::panels
    /// for codes_of. scales and zeros are [N, G], g_idx [K].
    template <class CodesOf>
    prepared(int bits, matrix_view<const float> scales, matrix_view<const std::uint8_t> zeros,
             std::span<const std::int32_t> g_idx, const CodesOf& codes_of, weight_memory* memory = nullptr)
        : prepared(kernels::find_family<held>(bits, kernels::levels_as::codes), nullptr, scales, zeros, g_idx, codes_of,
                   memory) {}

    std::size_t out_features() const { return out_features_; }    ///< N
    std::size_t in_features() const { return features_.size(); }  ///< K
    std::size_t groups() const { return groups_; }                ///< G
    /// The size of codes, scales and zero points: what a product with one row reads.
    std::size_t bytes() const { return panels_.bytes(); }

    /// Y(t, n) = epilogue((X Wq')(t, n), t, n). X [T, K] and Y [T, N] are of float, half or bfloat16; the sums are
    /// taken in float, and for integer inputs exactly within a group. A token with an input that is not finite gets
    /// outputs that are not. Throws shape_error where the shapes do not fit, and what the epilogue throws.
    template <class T, class U, class Epilogue = no_epilogue>
    void multiply(matrix_view<T> X, matrix_view<U> Y, const matmul_options& options = {},
                  const Epilogue& epilogue = {}) const;

    /// The first part of multiply, with the same arguments and errors: what it returns is left to be done. For layers
    /// that read the same inputs (the projections to queries, keys and values), whose products run together so.
    /// `beside` is a product with the same X that has begun already; where it can, this one shares its inputs.
    template <class T, class U, class Epilogue = no_epilogue>
    begun_product<U, Epilogue> begin(matrix_view<T> X, matrix_view<U> Y, const matmul_options& options = {},
                                     const Epilogue& epilogue = {},
                                     const begun_product<U, Epilogue>* beside = nullptr) const {
        if (X.cols != in_features() || Y.cols != out_features() || Y.rows != X.rows)
            throw shape_error("matmul: X " + shape_string(X.rows, X.cols) + " times a layer " +
                              shape_string(out_features(), in_features()) + " into Y " + shape_string(Y.rows, Y.cols));
        const kernels::kernel kernel = family_.find(options.instructions);
        if (beside != nullptr && beside->inputs()->serve(kernel, features_, A::levels))
            return {panels_, features_, kernel, beside->inputs(), Y, epilogue};
        const std::size_t threads = X.rows > 1 ? options.threads_for(X.rows * in_features() * out_features()) : 1;
        auto inputs = std::make_shared<const detail::held_rows>(kernel, features_, A::levels,
                                                                matrix_view<const std::remove_const_t<T>>(X), threads);
        return {panels_, features_, kernel, std::move(inputs), Y, epilogue};
    }

 private:
    static constexpr kernels::held_as held = A::levels == 0    ? kernels::held_as::floats
                                             : A::levels < 128 ? kernels::held_as::int8
                                                               : kernels::held_as::int16;
    static constexpr bool integers = held != kernels::held_as::floats;
    using layer = kernels::leveled_layer;
    using table_pointer = std::shared_ptr<const kernels::level_table>;

    template <int Bits, bool Affine>
    static kernels::kernel_family family_for(const layer& of) {
        if constexpr (!Affine) return kernels::family_of<held, Bits>(of.levels());
        if (of.levels() != kernels::levels_as::codes)
            throw unsupported_error("prepare: the layer has levels of its own, though its grid is said to be affine");
        return kernels::family_of<held, Bits>();
    }

    prepared(const layer& q, kernels::kernel_family (*family_of)(const layer&), weight_memory* memory);

    template <class CodesOf>
    prepared(kernels::kernel_family family, table_pointer levels, matrix_view<const float> scales,
             matrix_view<const std::uint8_t> zeros, std::span<const std::int32_t> g_idx, const CodesOf& codes_of,
             weight_memory* memory)
        : out_features_(scales.rows),
          groups_(scales.cols),
          family_(family),
          features_(g_idx, scales.cols),
          panels_(make_panels(scales, zeros, std::move(levels), codes_of, memory)) {}

    template <class CodesOf>
    kernels::panels make_panels(matrix_view<const float> scales, matrix_view<const std::uint8_t> zeros,
                                table_pointer levels, const CodesOf& codes_of, weight_memory* memory) const {
        weight_memory own(0);
        return {family_.bits, features_, scales, zeros, std::move(levels), memory != nullptr ? *memory : own, codes_of};
    }

    static const_quantized_view checked(const_quantized_view q) {
        const std::size_t N = q.codes.rows, K = q.codes.cols, G = q.scales.cols;
        if (N == 0 || K == 0 || q.scales.rows != N || q.zeros.rows != N || q.zeros.cols != G || q.g_idx.size() != K)
            throw shape_error("prepare: codes " + shape_string(N, K) + ", scales " + shape_string(q.scales.rows, G) +
                              ", zeros " + shape_string(q.zeros.rows, q.zeros.cols) + " and g_idx [" +
                              std::to_string(q.g_idx.size()) + "] are not those of one layer");
        return q;
    }

    std::size_t out_features_;
    std::size_t groups_;
    kernels::kernel_family family_;
    kernels::feature_order features_;
    kernels::panels panels_;
};

// Apart from the class, and so not inline: what gptq::compiled holds is not compiled again where it is called.

template <Activation A>
prepared<A>::prepared(const layer& q, kernels::kernel_family (*family_of)(const layer&), weight_memory* memory)
    : prepared(
          family_of(q), q.table(), q.scales(), q.zeros(), q.g_idx(),
          [&](std::size_t first, matrix_view<std::uint8_t> room) { return q.codes(first, room); }, memory) {}

template <Activation A>
template <class T, class U, class Epilogue>
void prepared<A>::multiply(matrix_view<T> X, matrix_view<U> Y, const matmul_options& options,
                           const Epilogue& epilogue) const {
    const std::array products = {begin(X, Y, options, epilogue)};
    kernels::run_jobs(products, options.threads_for(products.front().work()));
}

}  // namespace gptq
