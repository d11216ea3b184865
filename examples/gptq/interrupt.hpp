// Ctrl-C, SIGTERM and SIGHUP: a flag that long work looks at, so that it stops between two steps and cleans up after
// itself.
#pragma once

namespace program {

/// From now on the first SIGINT, SIGTERM or SIGHUP sets the flag, and a second one ends the program at once. Writing
/// beyond a limit on the size of files fails and no longer kills.
void catch_interrupts();

/// Throws gptq::cancelled if the user asked to stop.
void throw_if_interrupted();

}  // namespace program
