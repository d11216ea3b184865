// The one place that knows where xtensor keeps its headers: 0.26 moved them all. Nobody else includes xtensor.
#pragma once

#if __has_include(<xtensor/containers/xtensor.hpp>)
#include <xtensor/containers/xtensor.hpp>
#else
#include <xtensor/xtensor.hpp>
#endif
