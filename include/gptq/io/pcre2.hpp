// PCRE2's header, which asks for the width of a character first: 8 bits, unless the program has chosen before.
#pragma once

#ifndef PCRE2_CODE_UNIT_WIDTH
#define PCRE2_CODE_UNIT_WIDTH 8
#endif
#include <pcre2.h>
