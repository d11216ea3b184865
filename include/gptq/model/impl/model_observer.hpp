// The bodies of <gptq/model/model_observer.hpp>.
#pragma once

#include <cstddef>
#include <string>

#include <gptq/compiled.hpp>
#include <gptq/model/model_observer.hpp>
#include <gptq/model/quantize_log.hpp>

namespace gptq::model {

GPTQ_INLINE void model_observer_ref::on_progress(double fraction, const std::string& doing) const {
    if (observer_ != nullptr) on_progress_(observer_, fraction, doing);
}

GPTQ_INLINE void model_observer_ref::on_module(const module_record& record) const {
    if (observer_ != nullptr) on_module_(observer_, record);
}

GPTQ_INLINE void model_observer_ref::on_columns(std::size_t done, std::size_t total) const {
    if (observer_ != nullptr) on_columns_(observer_, done, total);
}

GPTQ_INLINE void model_observer_ref::on_warning(const std::string& warning) const {
    if (observer_ != nullptr) on_warning_(observer_, warning);
}

GPTQ_INLINE void model_observer_ref::on_resumed(std::size_t done, std::size_t all) const {
    if (observer_ != nullptr) on_resumed_(observer_, done, all);
}

}  // namespace gptq::model
