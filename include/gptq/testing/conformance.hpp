// Whether a grid, a layout or a backend of yours keeps the promises of <gptq/concepts.hpp>. Needs no test framework:
//
//     for (const std::string& line : gptq::testing::check_layout<my_layout>()) std::cerr << line << '\n';
//
// check_grid<Bits>(grid)      QuantGrid
// check_layout<L>()           PackLayout
// check_backend(backend)      Backend, against <gptq/reference_backend.hpp>
// check_order(order)          OrderingPolicy
// check_group_policy<G>()     GroupPolicy
//
// and in <gptq/testing/check_model_backend.hpp>, because it needs the headers of models:
// check_model_backend(backend)    ModelBackend, against <gptq/model/reference_model_backend.hpp>
//
// and in <gptq/testing/check_communicator.hpp>:
// check_communicator(ranks)       Communicator, called by all ranks at once
//
// Each returns one line for every broken promise, with the number of its sentence, and nothing for a model that
// conforms.
#pragma once

#include <gptq/testing/check_backend.hpp>
#include <gptq/testing/check_grid.hpp>
#include <gptq/testing/check_layout.hpp>
#include <gptq/testing/check_policies.hpp>
#include <gptq/testing/violations.hpp>
