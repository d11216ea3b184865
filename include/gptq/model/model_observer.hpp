// Who watches quantize_model.
#pragma once

#include <concepts>
#include <cstddef>
#include <memory>
#include <string>
#include <type_traits>

#include <gptq/compiled.hpp>
#include <gptq/model/quantize_log.hpp>

namespace gptq::model {

/// What may watch quantize_model: an Observer with more members.
///  - on_progress(fraction, doing): `fraction` (0 to 1) of the weights are done, and the module `doing` comes next.
///  - on_module(record): a module is done.
///  - on_warning(text), which may be left out: what the user should know before the work begins. The result has it, too.
///  - on_resumed(done, all), which may be left out: `done` of `all` blocks were finished by an earlier run.
/// What they throw stops the work, as in on_columns; gptq::cancelled is the exception for "the user wants to stop".
template <class O>
concept ModelObserver = requires(O& o, const module_record& record, const std::string& doing, std::size_t columns) {
    o.on_progress(0.5, doing);
    o.on_module(record);
    o.on_columns(columns, columns);
};

/// Any ModelObserver by reference and without its type, or none: quantize_model is compiled once for all of them. The
/// observer outlives it.
class model_observer_ref {
 public:
    model_observer_ref() = default;
    template <ModelObserver O>
    requires(!std::is_same_v<O, model_observer_ref>) model_observer_ref(O& observer)
        : observer_(std::addressof(observer)),
          on_progress_([](void* o, double f, const std::string& d) { static_cast<O*>(o)->on_progress(f, d); }),
          on_module_([](void* o, const module_record& r) { static_cast<O*>(o)->on_module(r); }),
          on_columns_([](void* o, std::size_t d, std::size_t t) { static_cast<O*>(o)->on_columns(d, t); }),
          on_warning_([]([[maybe_unused]] void* o, [[maybe_unused]] const std::string& w) {
              if constexpr (requires(O & watching) { watching.on_warning(w); }) static_cast<O*>(o)->on_warning(w);
          }),
          on_resumed_(
              []([[maybe_unused]] void* o, [[maybe_unused]] std::size_t done, [[maybe_unused]] std::size_t all) {
                  if constexpr (requires(O & watching) { watching.on_resumed(done, all); })
                      static_cast<O*>(o)->on_resumed(done, all);
              }) {}

    void on_progress(double fraction, const std::string& doing) const;
    void on_module(const module_record& record) const;
    void on_columns(std::size_t done, std::size_t total) const;
    void on_warning(const std::string& warning) const;
    void on_resumed(std::size_t done, std::size_t all) const;

 private:
    void* observer_ = nullptr;
    void (*on_progress_)(void*, double, const std::string&) = nullptr;
    void (*on_module_)(void*, const module_record&) = nullptr;
    void (*on_columns_)(void*, std::size_t, std::size_t) = nullptr;
    void (*on_warning_)(void*, const std::string&) = nullptr;
    void (*on_resumed_)(void*, std::size_t, std::size_t) = nullptr;
};

}  // namespace gptq::model

#ifndef GPTQ_COMPILED
#include <gptq/model/impl/model_observer.hpp>
#endif
