// A loop of anybody's, compiled for an instruction set: a fragment under the rules of loops.inl.

/// f(r) for r in [first, last). All of f that the compiler can inline becomes code for this instruction set; f itself is
/// ordinary code, written so that compilers vectorize it.
template <class F>
__attribute__((flatten)) inline void run_rows(const F& f, std::size_t first, std::size_t last) {
    for (std::size_t r = first; r < last; ++r) f(r);
}
