// What the examples verify themselves with: a line on standard error and exit status 1, in every kind of build.
#pragma once

#include <cstdlib>
#include <iostream>

/// Ends the program with status 1 unless `holds`.
inline void check(bool holds, const char* what) {
    if (holds) return;
    std::cerr << "failed: " << what << '\n';
    std::exit(EXIT_FAILURE);
}

/// Prints the promises that a model of yours broke, and ends the program if there are any.
template <class Violations>
void check_conforms(const Violations& violations) {
    for (const auto& line : violations) std::cerr << line << '\n';
    check(violations.empty(), "conformance");
}
