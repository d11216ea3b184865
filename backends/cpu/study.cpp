// Studies of gptq::compiled: see <gptq/compiled.hpp>.
#ifndef GPTQ_COMPILED
#error "Define GPTQ_COMPILED for this file and for all others of the program"
#endif

#include <gptq/study/impl/allocate.hpp>
#include <gptq/study/impl/cell.hpp>
#include <gptq/study/impl/chart.hpp>
#include <gptq/study/impl/folder.hpp>
#include <gptq/study/impl/input.hpp>
#include <gptq/study/impl/json_members.hpp>
#include <gptq/study/impl/layer_pass.hpp>
#include <gptq/study/impl/model_cell.hpp>
#include <gptq/study/impl/plan.hpp>
#include <gptq/study/impl/report.hpp>
#include <gptq/study/impl/results.hpp>
#include <gptq/study/impl/run_study.hpp>
