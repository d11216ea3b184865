// Everything that works on one layer: quantize it, pack it, run it. Whole models: <gptq/model/...> and <gptq/io/...>.
#pragma once

#include <gptq/backends/cpu/cpu_backend.hpp>
#include <gptq/concepts.hpp>
#include <gptq/drift.hpp>
#include <gptq/error.hpp>
#include <gptq/factor.hpp>
#include <gptq/grids/affine.hpp>
#include <gptq/groups.hpp>
#include <gptq/half.hpp>
#include <gptq/hessian.hpp>
#include <gptq/layouts/compressed_tensors.hpp>
#include <gptq/layouts/gptq.hpp>
#include <gptq/matmul.hpp>
#include <gptq/matrix_view.hpp>
#include <gptq/observer.hpp>
#include <gptq/options.hpp>
#include <gptq/orders.hpp>
#include <gptq/prune.hpp>
#include <gptq/quantize.hpp>
#include <gptq/refine.hpp>
#include <gptq/round_to_nearest.hpp>
#include <gptq/scheme.hpp>
#include <gptq/xtensor/matmul.hpp>
#include <gptq/xtensor/pack.hpp>
#include <gptq/xtensor/prune.hpp>
#include <gptq/xtensor/surface.hpp>
