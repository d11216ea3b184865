// The kernels themselves, written once for all instruction sets.
//
// A fragment: each header of an instruction set places it into its own namespace, compiled for its own target, after
// `vec`, the vector operations of that set. It must stay without #include and must call no function of the standard
// library: an inline function compiled here would need the instruction set wherever the linker puts it to use.
//
// vec handles 16 lanes of 32 bits: vec::ints and vec::floats. See portable.hpp for what each operation means.

/// f(index<0>{}), f(index<1>{}), ...: loops whose count and positions are known to the compiler.
template <std::size_t I>
struct index {
    static constexpr std::size_t value = I;
};
template <class F, std::size_t... I>
[[gnu::always_inline]] inline void unroll(std::index_sequence<I...>, const F& f) {
    (f(index<I>{}), ...);
}
template <std::size_t Count, class F>
[[gnu::always_inline]] inline void unroll(const F& f) {
    unroll(std::make_index_sequence<Count>{}, f);
}

// --------------------------------------------------------------------------------------------------------------- codes

/// The codes of quad J of a run as bytes, times 2^Left.
template <int Bits, std::size_t J, int Left = 0>
inline vec::ints code_quad(const std::uint32_t* run) {
    if constexpr (Bits == 3) {
        return vec::bit_or(code_quad<2, J, Left>(run), code_quad<1, J, Left + 2>(run + 2 * panel_width));
    } else {
        constexpr std::size_t fields = 8 / Bits;
        constexpr int right = Bits * static_cast<int>(J % fields) - Left;
        const vec::ints line = vec::load(run + J / fields * panel_width);
        constexpr std::uint32_t mask = ((1u << Bits) - 1u) * 0x01010101u << Left;
        if constexpr (Bits == 8)
            return line;
        else if constexpr (right == 0)
            return vec::bit_and(line, vec::splat(mask));
        else
            return vec::bit_and(vec::shift_right<right>(line), vec::splat(mask));
    }
}

/// Lanes whose lowest Bits bits are the codes of feature I of a run; of 3 bits, the fourth one is 0.
template <int Bits, std::size_t I>
inline vec::ints code(const std::uint32_t* run) {
    constexpr int byte = 8 * static_cast<int>(I % 4);
    if constexpr (Bits == 3) {
        return vec::shift_right<byte>(code_quad<Bits, I / 4>(run));
    } else {
        constexpr std::size_t fields = 8 / Bits;
        constexpr int right = byte + Bits * static_cast<int>(I / 4 % fields);
        return vec::shift_right<right>(vec::load(run + I / 4 / fields * panel_width));
    }
}

// -------------------------------------------------------------------------------------------------------------- levels
// What codes stand for; each is made from panel_view::levels.
//   quad      the levels of quad J of a run as bytes
//   number    the levels of feature I of a run as floats
//   are_codes whether levels are the codes

struct own_levels {
    static constexpr bool are_codes = true;
    explicit own_levels(const level_table*) {}

    template <int Bits, std::size_t J>
    vec::ints quad(const std::uint32_t* run) const {
        return code_quad<Bits, J>(run);
    }
    template <int Bits, std::size_t I>
    vec::floats number(const std::uint32_t* run) const {
        return vec::low_bits_to_floats<Bits>(code<Bits, I>(run));
    }
};

/// Levels of any value: up to 16 of them in registers, more in memory.
template <bool Small>
struct float_levels {
    static constexpr bool are_codes = false;
    vec::floats table;
    const float* memory;
    explicit float_levels(const level_table* levels)
        : table(vec::load_floats(levels->floats)), memory(levels->floats) {}

    template <int Bits, std::size_t I>
    vec::floats number(const std::uint32_t* run) const {
        if constexpr (Small)
            return vec::look_up(table, code<Bits, I>(run));
        else
            return vec::gather(memory, vec::bit_and(code<Bits, I>(run), vec::splat(0xffu)));
    }
};

/// Whole levels of codes of 4 bits.
struct byte_levels {
    static constexpr bool are_codes = false;
    vec::ints table;
    explicit byte_levels(const level_table* levels) : table(vec::load_bytes(levels->bytes)) {}

    template <int Bits, std::size_t J>
    vec::ints quad(const std::uint32_t* run) const {
        return vec::look_up_bytes(table, code_quad<Bits, J>(run));
    }
};

// ------------------------------------------------------------------------------------------------------ number formats
// A format turns codes into `operands` vectors of levels a run, of which each is multiplied by one word of inputs.
//   sums      what products are added to; begin() and end() go from sums to those of one run and back
//   chains    how many sums side by side keep the processor's units busy
//   tile_rows how many rows of sums the registers hold
//   looks_up  whether a single row adds up table entries instead of products
//   splits    whether a row that is multiplied alone is held as hold_split does

template <class Levels>
struct float_format {
    using levels = Levels;
    using sums = vec::floats;
    template <int Bits>
    static constexpr bool splits = false;
    static constexpr std::size_t operands = run_features;
    static constexpr std::size_t chains = vec::chains;
    static constexpr std::size_t tile_rows = vec::tile_rows;
    template <int Bits>
    static constexpr bool looks_up = Levels::are_codes && Bits <= vec::table_bits;

    template <int Bits, std::size_t I>
    static vec::ints operand(const Levels& levels, const std::uint32_t* run) {
        return vec::as_ints(levels.template number<Bits, I>(run));
    }
    static sums zero() { return vec::splat_float(0.0f); }
    /// What the sum of code * input begins with so that it becomes that of (code - zero) * input.
    static sums start(const std::uint8_t* zeros, std::uint32_t input_sum) {
        return vec::multiply(vec::to_floats(vec::widen(zeros)), vec::splat_float(__builtin_bit_cast(float, input_sum)));
    }
    static sums begin(sums s) { return s; }
    static sums multiply_add(sums s, vec::ints codes, std::uint32_t input) {
        return vec::multiply_add(vec::as_floats(codes), vec::splat_float(__builtin_bit_cast(float, input)), s);
    }
    static sums end(sums, sums s) { return s; }
    static sums add(sums a, sums b) { return vec::add_floats(a, b); }
    static vec::floats result(sums s, float /*input_scale*/) { return s; }
};

struct integer_format {
    using sums = vec::ints;
    template <int Bits>
    static constexpr bool looks_up = false;
    static sums zero() { return vec::splat(0); }
    static sums start(const std::uint8_t* zeros, std::uint32_t input_sum) {
        const vec::ints once = vec::widen(zeros), with_128_times = vec::bit_or(once, vec::shift_right<-23>(once));
        return vec::dot_pairs(zero(), with_128_times, vec::splat(input_sum));
    }
    static sums add(sums a, sums b) { return vec::add(a, b); }
    static vec::floats result(sums s, float input_scale) {
        return vec::multiply(vec::to_floats(s), vec::splat_float(input_scale));
    }

    /// As a pair of 16-bit integers, of which the second counts 128 times: a sum of 128 of them fits.
    static std::uint32_t negative_sum(std::int32_t sum) {
        return static_cast<std::uint32_t>(-sum & 127) | static_cast<std::uint32_t>(-sum >> 7) << 16;
    }
};

/// Codes and inputs as pairs of 16-bit integers: bytes 0 and 2 of a quad, then bytes 1 and 3.
template <class Levels>
struct pair_format : integer_format {
    using levels = Levels;
    static constexpr std::size_t operands = run_features / 2;
    static constexpr std::size_t chains = vec::chains;
    static constexpr std::size_t tile_rows = vec::tile_rows;

    template <int Bits, std::size_t I>
    static vec::ints operand(const Levels& levels, const std::uint32_t* run) {
        const vec::ints codes = levels.template quad<Bits, I / 2>(run);
        if constexpr (I % 2 == 0)
            return vec::bit_and(codes, vec::splat(0x00ff00ffu));
        else
            return vec::shift_right_16<8>(codes);
    }
    static sums begin(sums s) { return s; }
    static sums multiply_add(sums s, vec::ints codes, std::uint32_t input) {
        return vec::dot_pairs(s, codes, vec::splat(input));
    }
    static sums end(sums, sums s) { return s; }

    /// Codes of 8 bits need no unpacking; pairs of them are multiplied faster.
    template <int Bits>
    static constexpr bool splits = Levels::are_codes && vec::splits && Bits < 8;
};

/// Codes and inputs as quads of bytes.
template <class Levels>
struct quad_format : integer_format {
    using levels = Levels;
    template <int Bits>
    static constexpr bool splits = false;
    static constexpr bool of_codes = Levels::are_codes;
    static constexpr std::size_t operands = run_features / 4;
    static constexpr std::size_t chains = vec::quad_chains;
    static constexpr std::size_t tile_rows = vec::quad_tile_rows;

    template <int Bits, std::size_t I>
    static vec::ints operand(const Levels& levels, const std::uint32_t* run) {
        return levels.template quad<Bits, I>(run);
    }
    static sums begin(sums s) { return of_codes ? vec::begin_quads(s) : s; }
    static sums multiply_add(sums s, vec::ints codes, std::uint32_t input) {
        return of_codes ? vec::dot_quads(s, codes, vec::splat(input)) : vec::dot_bytes(s, codes, vec::splat(input));
    }
    static sums end(sums before, sums s) { return of_codes ? vec::end_quads(before, s) : s; }
};

// ----------------------------------------------------------------------------------------------------------- the loops

inline constexpr std::size_t width = vec::width;  // vectors side by side that are multiplied together

/// The segment that is being multiplied, and where its parts are.
struct segment_position {
    std::size_t index;  // among those of the panel
    std::size_t runs;
    const float* scales;        // [panel_width]
    const std::uint8_t* zeros;  // [panel_width]
    std::size_t first_input;    // where the segment begins in a row of inputs
};

/// out [lanes] += scale * sums, for the lanes of a panel from `lane` on.
template <class Format>
inline void add_scaled(const segment_position& at, std::size_t lane, typename Format::sums sums, float input_scale,
                       float* out) {
    const vec::floats result = Format::result(sums, input_scale), scales = vec::load_floats(at.scales + lane);
    vec::store_floats(out, vec::multiply_add(result, scales, vec::load_floats(out)));
}

/// The sums of a single row.
template <class Format>
struct row_sums {
    static constexpr std::size_t count = Format::chains * width;
    typename Format::sums values[count];  // [chains, width]
};

/// Adds the products of a run with one row of inputs to sums, codes being unpacked as they are used.
template <class Format, int Bits>
[[gnu::always_inline]] inline void multiply_run(const typename Format::levels& levels, const std::uint32_t* words,
                                                const std::uint32_t* input, row_sums<Format>& sums) {
    unroll<Format::operands * width>([&](auto i) {
        constexpr std::size_t operand = i.value / width, part = i.value % width;
        auto& sum = sums.values[i.value % sums.count];
        const vec::ints factors = Format::template operand<Bits, operand>(levels, words + part * lanes);
        sum = Format::multiply_add(sum, factors, input[operand]);
    });
}

/// The same for a plane of Bits bits a code that count Weight times, with tables: codes are not made numbers one by
/// one, but each nibble of codes stands for what it adds. Vec is vec, or compilers would look for tables in all of
/// them.
template <class Vec, int Bits, int Weight>
[[gnu::always_inline]] inline void look_up_plane(const std::uint32_t* words, const std::uint32_t* input,
                                                 row_sums<float_format<own_levels>>& sums) {
    constexpr std::size_t codes = 4 / Bits, nibbles = 8;  // of a nibble, of a word
    unroll<Bits * nibbles>([&](auto i) {
        constexpr std::size_t line = i.value / nibbles, nibble = i.value % nibbles;
        constexpr std::size_t quad = (2 * line + nibble % 2) * codes;
        const std::uint32_t* first = input + 4 * quad + nibble / 2;
        typename Vec::floats table = Vec::splat_float(0.0f);
        unroll<codes>([&](auto c) {
            const auto x = Vec::splat_float(__builtin_bit_cast(float, first[4 * c.value]));
            const auto digits = Vec::template digits<Bits, c.value, Weight>();
            table = c.value == 0 ? Vec::multiply(digits, x) : Vec::multiply_add(digits, x, table);
        });
        unroll<width>([&](auto p) {
            const auto line_words = Vec::load(words + line * panel_width + p.value * lanes);
            auto& sum = sums.values[(i.value * width + p.value) % sums.count];
            sum = Vec::add_entry(sum, table, Vec::template shift_right<4 * nibble>(line_words));
        });
    });
}

/// Asks for the weights of a run earlier than the processor would by itself, where that helps.
template <int Bits>
[[gnu::always_inline]] inline void prefetch_run([[maybe_unused]] const std::uint32_t* words) {
    constexpr std::size_t ahead = vec::template prefetch_words<Bits>;
    // Not inlined at once, g++ drops what has no effect.
    unroll<ahead == 0 ? 0 : Bits * width>([&](auto i) __attribute__((always_inline)) {
        constexpr std::size_t word = i.value / width * panel_width + i.value % width * lanes;
        __builtin_prefetch(words + ahead + word, 0, 3);
    });
}

/// One row and the panel's output features [lane, lane + width * lanes). Not inlined: with -O3, g++ 12 then schedules
/// codes of 3 bits so that they take a quarter more time.
template <class Format, int Bits>
[[gnu::noinline]] inline void multiply_row(const level_table* table, const std::uint32_t* words, const segment_position& at,
                         const rows_view& inputs, std::size_t lane, float* out) {
    const typename Format::levels levels(table);
    row_sums<Format> sums, run_sums;
    unroll<sums.count>([&](auto i) {
        constexpr bool first = i.value < width;
        sums.values[i.value] =
            first ? Format::start(at.zeros + lane + i.value % width * lanes, inputs.sums[at.index]) : Format::zero();
    });
    const std::uint32_t* input = inputs.words + at.first_input;
    for (std::size_t run = 0; run < at.runs; ++run) {
        prefetch_run<Bits>(words);
        unroll<sums.count>([&](auto i) { run_sums.values[i.value] = Format::begin(sums.values[i.value]); });
        if constexpr (Format::template looks_up<Bits>) {
            look_up_plane<vec, Bits == 3 ? 2 : Bits, 1>(words, input, run_sums);
            if constexpr (Bits == 3) {
                // Else compilers keep inputs in registers for the second plane, and run out of them.
                __asm__ volatile("" : : : "memory");
                look_up_plane<vec, 1, 4>(words + 2 * panel_width, input, run_sums);
            }
        } else {
            multiply_run<Format, Bits>(levels, words, input, run_sums);
        }
        unroll<sums.count>(
            [&](auto i) { sums.values[i.value] = Format::end(sums.values[i.value], run_sums.values[i.value]); });
        words += Bits * panel_width;
        input += Format::operands;
    }
    unroll<sums.count - width>([&](auto i) {
        auto& sum = sums.values[i.value % width];
        sum = Format::add(sum, sums.values[width + i.value]);
    });
    unroll<width>([&](auto p) {
        const std::size_t column = lane + p.value * lanes;
        add_scaled<Format>(at, column, sums.values[p.value], inputs.scales[at.index], out + column);
    });
}

// ------------------------------------------------------------------------------------- one row of inputs of 16 bits
// Pairs of codes take more instructions to make than to multiply. A row that is multiplied alone is held as bytes,
// x = 256 upper + lower, and so multiplied by quads of codes; and those are masked only, where they lie in their bytes:
// a code of field f counts 2^(Bits f) times, has a sum of its own, and is set right once a segment.

/// Which sum quad J is added to, by the field of its byte that it is left in. The last field of 3 bits has no room for
/// the third; it joins the one before.
template <int Bits>
constexpr std::size_t sum_of_quad(std::size_t j) {
    if (Bits == 3) return j % 4 < 2 ? j % 4 : 2;
    return j % (8 / Bits);
}
/// How many bits higher than those of the sum before the codes of a sum are left.
template <int Bits>
inline constexpr int field_bits = Bits == 3 ? 2 : Bits;

/// The sums of a row: [fields, lower and upper bytes, width].
template <int Bits>
struct split_sums {
    static constexpr std::size_t fields = sum_of_quad<Bits>(7) + 1;
    vec::ints values[fields][2][width];
};

/// x / 2^Count for a multiple of it, of any sign. Vec is vec.
template <class Vec, int Count>
inline typename Vec::ints divide_exactly(typename Vec::ints x) {
    constexpr std::uint32_t half = 0x80000000u;
    const auto shifted = Vec::template shift_right<Count>(Vec::add(x, Vec::splat(half)));
    return Vec::add(shifted, Vec::splat(0u - (half >> Count)));
}

/// The sum of codes times inputs for part Part of the panel.
template <int Bits, std::size_t Part>
inline vec::ints total(const split_sums<Bits>& sums) {
    const auto of_bytes = [&](std::size_t upper) {
        vec::ints sum = sums.values[0][upper][Part];
        unroll<split_sums<Bits>::fields - 1>([&](auto f) {
            constexpr std::size_t field = f.value + 1;
            constexpr int shift = field_bits<Bits> * static_cast<int>(field);
            sum = vec::add(sum, divide_exactly<vec, shift>(sums.values[field][upper][Part]));
        });
        return sum;
    };
    return vec::add(of_bytes(0), vec::shift_right<-8>(of_bytes(1)));
}

/// As multiply_row, for inputs that hold_split left.
template <int Bits>
[[gnu::noinline]] inline void multiply_split_row(const std::uint32_t* words, const segment_position& at,
                                                 const rows_view& inputs, std::size_t lane, float* out) {
    split_sums<Bits> sums;
    for (auto& of_field : sums.values)
        for (auto& of_bytes : of_field)
            for (vec::ints& sum : of_bytes) sum = vec::splat(0);
    const std::uint32_t* input = inputs.words + at.first_input;
    for (std::size_t run = 0; run < at.runs; ++run) {
        prefetch_run<Bits>(words);
        unroll<run_features / 4>([&](auto j) {
            constexpr int left = field_bits<Bits> * static_cast<int>(sum_of_quad<Bits>(j.value));
            auto& of_field = sums.values[sum_of_quad<Bits>(j.value)];
            const vec::ints lower = vec::splat(input[2 * j.value]), upper = vec::splat(input[2 * j.value + 1]);
            unroll<width>([&](auto p) {
                const vec::ints codes = code_quad<Bits, j.value, left>(words + p.value * lanes);
                of_field[0][p.value] = vec::dot_quads(of_field[0][p.value], codes, lower);
                of_field[1][p.value] = vec::dot_quads(of_field[1][p.value], codes, upper);
            });
        });
        words += Bits * panel_width;
        input += run_features / 2;
    }
    unroll<width>([&](auto p) {
        const std::size_t column = lane + p.value * lanes;
        const vec::ints begun = integer_format::start(at.zeros + column, inputs.sums[at.index]);
        add_scaled<integer_format>(at, column, vec::add(begun, total<Bits, p.value>(sums)), inputs.scales[at.index],
                                   out + column);
    });
}

/// The operands of a segment for width * lanes output features, to be used for many rows.
template <class Format, int Bits>
inline void unpack_segment(const level_table* table, const std::uint32_t* words, std::size_t runs, std::uint32_t* out) {
    const typename Format::levels levels(table);
    for (std::size_t run = 0; run < runs; ++run) {
        for (std::size_t part = 0; part < width; ++part)
            unroll<Format::operands>([&](auto i) {
                vec::store(out + (i.value * width + part) * lanes,
                           Format::template operand<Bits, i.value>(levels, words + part * lanes));
            });
        words += Bits * panel_width;
        out += Format::operands * width * lanes;
    }
}

/// The tile of rows [first, first + Rows) and of the panel's output features [lane, lane + width * lanes), from
/// operands that unpack_segment left in the cache.
template <class Format, std::size_t Rows>
inline void multiply_tile(const std::uint32_t* operands, const segment_position& at, const rows_view& inputs,
                          std::size_t first, std::size_t lane, float* out) {
    constexpr std::size_t count = Rows * width;
    const std::size_t in_segments = first * inputs.segments + at.index * Rows;
    typename Format::sums sums[count], run_sums[count];
    unroll<count>([&](auto i) {
        sums[i.value] =
            Format::start(at.zeros + lane + i.value % width * lanes, inputs.sums[in_segments + i.value / width]);
    });
    const std::uint32_t* input = inputs.words + first * inputs.row_words + at.first_input * Rows;
    for (std::size_t run = 0; run < at.runs; ++run) {
        unroll<count>([&](auto i) { run_sums[i.value] = Format::begin(sums[i.value]); });
        for (std::size_t operand = 0; operand < Format::operands; ++operand) {
            vec::ints codes[width];
            unroll<width>([&](auto p) { codes[p.value] = vec::load(operands + p.value * lanes); });
            unroll<count>([&](auto i) {
                auto& sum = run_sums[i.value];
                sum = Format::multiply_add(sum, codes[i.value % width], input[i.value / width]);
            });
            operands += width * lanes;
            input += Rows;
        }
        unroll<count>([&](auto i) { sums[i.value] = Format::end(sums[i.value], run_sums[i.value]); });
    }
    unroll<count>([&](auto i) {
        const std::size_t row = i.value / width, column = lane + i.value % width * lanes;
        add_scaled<Format>(at, column, sums[i.value], inputs.scales[in_segments + row],
                           out + (first + row) * panel_width + column);
    });
}

/// All rows, in tiles of Format::tile_rows while there are as many left.
template <class Format>
inline void multiply_tiles(const std::uint32_t* operands, const segment_position& at, const rows_view& inputs,
                           std::size_t lane, float* out) {
    std::size_t first = 0;
    for (; first + Format::tile_rows <= inputs.rows; first += Format::tile_rows)
        multiply_tile<Format, Format::tile_rows>(operands, at, inputs, first, lane, out);
    if constexpr (Format::tile_rows != small_tile)
        for (; first + small_tile <= inputs.rows; first += small_tile)
            multiply_tile<Format, small_tile>(operands, at, inputs, first, lane, out);
    if constexpr (!vec::fuses)
        if (first < inputs.rows) multiply_tile<Format, 1>(operands, at, inputs, first, lane, out);
}

/// Numbers in binary16, 16 bits of each word from bit Right on, as floats: their bits moved to where a float has them,
/// the exponent corrected by a product. Exact, also for those too small for a full exponent.
template <int Right>
inline vec::floats widen_halves(const std::uint32_t* words) {
    const vec::ints bits = vec::shift_right<Right>(vec::load(words));
    const vec::ints magnitude = vec::shift_right<-13>(vec::bit_and(bits, vec::splat(0x7fffu)));
    const vec::ints sign = vec::shift_right<-16>(vec::bit_and(bits, vec::splat(0x8000u)));
    return vec::as_floats(
        vec::bit_or(vec::as_ints(vec::multiply(vec::as_floats(magnitude), vec::splat_float(0x1p112f))), sign));
}

/// The scales of a group, from panel_view::half_scales.
inline void widen_scales(const std::uint32_t* halves, float* scales) {
    vec::store_floats(scales, widen_halves<0>(halves));
    vec::store_floats(scales + lanes, widen_halves<16>(halves));
}

/// kernel::multiply.
template <class Format, int Bits>
inline void multiply(const panel_view& panel, const rows_view& inputs, float* out) {
    alignas(64) std::uint32_t operands[segment_runs * Format::operands * width * lanes];
    alignas(64) float wide_scales[panel_width];
    for (std::size_t i = 0; i < inputs.rows * panel_width; ++i) out[i] = 0.0f;
    const std::uint32_t* words = panel.words;
    segment_position at{0, 0, nullptr, nullptr, 0};
    for (; at.index != panel.segment_count; ++at.index) {
        const std::size_t group = panel.segments[at.index].group;
        at.runs = panel.segments[at.index].runs;
        at.zeros = panel.zeros + group * panel.zeros_of_group;
        if (panel.scales != nullptr) {
            at.scales = panel.scales + group * panel_width;
        } else {
            widen_scales(panel.half_scales + group * lanes, wide_scales);
            at.scales = wide_scales;
        }
        for (std::size_t lane = 0; lane < panel_width; lane += width * lanes) {
            if (vec::fuses && inputs.rows == 1) {
                if constexpr (Format::template splits<Bits>)
                    multiply_split_row<Bits>(words + lane, at, inputs, lane, out);
                else if constexpr (vec::fuses)
                    multiply_row<Format, Bits>(panel.levels, words + lane, at, inputs, lane, out);
            } else {
                unpack_segment<Format, Bits>(panel.levels, words + lane, at.runs, operands);
                multiply_tiles<Format>(operands, at, inputs, lane, out);
            }
        }
        words += at.runs * Bits * panel_width;
        at.first_input += at.runs * Format::operands;
    }
}

// ------------------------------------------------------------------------------------------------------ holding inputs

/// combine() of all, in halves of a size that compilers know: instructions for one number at a time would take longer
/// than the loop before.
template <std::size_t Count = run_features, class T, class Combine>
[[gnu::always_inline]] inline T reduce(T* values, const Combine& combine) {
    constexpr std::size_t half = Count / 2;
    for (std::size_t i = 0; i < half; ++i) values[i] = combine(values[i], values[half + i]);
    if constexpr (half > 1) return reduce<half>(values, combine);
    return values[0];
}
template <class T>
[[gnu::always_inline]] inline T sum_of(T (&values)[run_features]) {
    return reduce(values, [](T a, T b) { return a + b; });
}

/// kernel::hold for floats.
inline void hold_floats(const float* x, std::size_t runs, float /*levels*/, std::uint32_t* words, float* scale,
                        std::uint32_t* sum) {
    float chains[run_features] = {};
    for (std::size_t run = 0; run < runs; ++run)
        for (std::size_t i = 0; i < run_features; ++i) chains[i] += x[run * run_features + i];
    __builtin_memcpy(words, x, runs * run_features * sizeof(float));
    *scale = 1.0f;
    *sum = __builtin_bit_cast(std::uint32_t, -sum_of(chains));
}

/// The bits of max|x|; numbers that are not finite are above all others.
inline std::int32_t largest_bits(const float* x, std::size_t runs) {
    std::int32_t lanes[run_features] = {};
    for (std::size_t run = 0; run < runs; ++run)
        for (std::size_t i = 0; i < run_features; ++i) {
            const std::int32_t bits = __builtin_bit_cast(std::int32_t, x[run * run_features + i]) & 0x7fffffff;
            lanes[i] = lanes[i] > bits ? lanes[i] : bits;
        }
    return reduce(lanes, [](std::int32_t a, std::int32_t b) { return a > b ? a : b; });
}

/// kernel::hold for integers. put(words, integers [32]) stores those of a run, Words words long.
template <std::size_t Words, class Put>
inline void hold_integers(const float* x, std::size_t runs, float levels, std::uint32_t* words, float* scale,
                          std::uint32_t* sum, const Put& put) {
    const std::int32_t bits = largest_bits(x, runs);
    if (bits >= 0x7f800000) {
        __builtin_memset(words, 0, runs * Words * sizeof(std::uint32_t));
        *scale = __builtin_nanf("");
        *sum = 0;
        return;
    }
    const float largest = __builtin_bit_cast(float, bits);
    const bool zeros = largest < 1e-30f;
    const float inverse = zeros ? 0.0f : levels / largest;
    std::int32_t sums[run_features] = {};
    for (std::size_t run = 0; run < runs; ++run) {
        float scaled[run_features];
        std::int32_t integers[run_features];
        for (std::size_t i = 0; i < run_features; ++i) scaled[i] = x[run * run_features + i] * inverse;
        // Else compilers fuse the product with the sum below where the instruction set can, and round differently.
        __asm__ volatile("" : : "r"(scaled) : "memory");
        for (std::size_t i = 0; i < run_features; ++i) {
            // Adding 1.5 * 2^23 leaves the nearest integer in the low bits of the sum, ties to even.
            integers[i] = __builtin_bit_cast(std::int32_t, scaled[i] + 12582912.0f) - 0x4b400000;
            sums[i] += integers[i];
        }
        put(words + run * Words, integers);
    }
    *scale = zeros ? 0.0f : largest / levels;
    *sum = integer_format::negative_sum(sum_of(sums));
}

/// kernel::hold for inputs that are to be rounded, as floats.
inline void hold_rounded_floats(const float* x, std::size_t runs, float levels, std::uint32_t* words, float* scale,
                                std::uint32_t* sum) {
    const std::int32_t bits = largest_bits(x, runs);
    const float largest = __builtin_bit_cast(float, bits);
    const bool finite = bits < 0x7f800000, zeros = largest < 1e-30f;
    const float inverse = zeros ? 0.0f : levels / largest;
    const float step = !finite ? __builtin_nanf("") : zeros ? 0.0f : largest / levels;
    float rounded[segment_runs * run_features];
    for (std::size_t i = 0; i < runs * run_features; ++i) rounded[i] = x[i] * inverse;
    // As in hold_integers.
    __asm__ volatile("" : : "r"(rounded) : "memory");
    for (std::size_t i = 0; i < runs * run_features; ++i) {
        const std::int32_t integer = __builtin_bit_cast(std::int32_t, rounded[i] + 12582912.0f) - 0x4b400000;
        rounded[i] = static_cast<float>(integer) * step;
    }
    hold_floats(rounded, runs, levels, words, scale, sum);
}

inline void hold_pairs(const float* x, std::size_t runs, float levels, std::uint32_t* words, float* scale,
                       std::uint32_t* sum) {
    constexpr std::size_t words_per_run = pair_format<own_levels>::operands;
    hold_integers<words_per_run>(x, runs, levels, words, scale, sum, [](std::uint32_t* to, const std::int32_t* from) {
        std::int16_t pairs[run_features];
        for (std::size_t q = 0; q < run_features; q += 4) {
            pairs[q] = static_cast<std::int16_t>(from[q]);
            pairs[q + 1] = static_cast<std::int16_t>(from[q + 2]);
            pairs[q + 2] = static_cast<std::int16_t>(from[q + 1]);
            pairs[q + 3] = static_cast<std::int16_t>(from[q + 3]);
        }
        __builtin_memcpy(to, pairs, sizeof pairs);
    });
}

/// Lower and upper bytes, both signed, of a quad after the other.
inline void hold_split(const float* x, std::size_t runs, float levels, std::uint32_t* words, float* scale,
                       std::uint32_t* sum) {
    constexpr std::size_t words_per_run = pair_format<own_levels>::operands;
    hold_integers<words_per_run>(x, runs, levels, words, scale, sum, [](std::uint32_t* to, const std::int32_t* from) {
        std::int8_t bytes[2][run_features];
        for (std::size_t i = 0; i < run_features; ++i) {
            bytes[0][i] = static_cast<std::int8_t>(from[i]);
            bytes[1][i] = static_cast<std::int8_t>((from[i] - bytes[0][i]) / 256);
        }
        std::uint32_t quads[2][run_features / 4];
        __builtin_memcpy(quads, bytes, sizeof bytes);
        for (std::size_t q = 0; q < run_features / 4; ++q) {
            to[2 * q] = quads[0][q];
            to[2 * q + 1] = quads[1][q];
        }
    });
}

inline void hold_quads(const float* x, std::size_t runs, float levels, std::uint32_t* words, float* scale,
                       std::uint32_t* sum) {
    constexpr std::size_t words_per_run = quad_format<own_levels>::operands;
    hold_integers<words_per_run>(x, runs, levels, words, scale, sum, [](std::uint32_t* to, const std::int32_t* from) {
        std::int8_t bytes[run_features];
        for (std::size_t i = 0; i < run_features; ++i) bytes[i] = static_cast<std::int8_t>(from[i]);
        __builtin_memcpy(to, bytes, sizeof bytes);
    });
}

// --------------------------------------------------------------------------------------------------------- the kernels

/// Float if the inputs or the levels are; then inputs that are to be rounded are so beforehand.
template <held_as Held, int Bits, class Levels>
inline kernel make_float_kernel() {
    using format = float_format<Levels>;
    constexpr auto hold = Held == held_as::floats ? hold_floats : hold_rounded_floats;
    return {format::operands, format::tile_rows, hold, hold, multiply<format, Bits>};
}

template <held_as Held, int Bits, class Levels>
inline kernel make_integer_kernel() {
    constexpr bool quads = Levels::are_codes ? (1 << Bits) - 1 <= vec::largest_quad : vec::largest_quad > 0;
    if constexpr (Held == held_as::int8 && quads) {
        using format = quad_format<Levels>;
        return {format::operands, format::tile_rows, hold_quads, hold_quads, multiply<format, Bits>};
    } else {
        using format = pair_format<Levels>;
        constexpr auto hold_alone = format::template splits<Bits> ? hold_split : hold_pairs;
        return {format::operands, format::tile_rows, hold_pairs, hold_alone, multiply<format, Bits>};
    }
}

template <held_as Held, int Bits, levels_as Levels>
inline kernel make_kernel() {
    if constexpr (Levels == levels_as::floats)
        return make_float_kernel<Held, Bits, float_levels<Bits <= level_table::small_bits>>();
    else if constexpr (Held == held_as::floats)
        return make_float_kernel<Held, Bits, own_levels>();
    else if constexpr (Levels == levels_as::bytes)
        return make_integer_kernel<Held, Bits, byte_levels>();
    else
        return make_integer_kernel<Held, Bits, own_levels>();
}
