// The threads of one session: an explicit number of them, asleep when there is no work.
#pragma once

#include <cstdint>
#include <memory>
#include <type_traits>

namespace weft {

/// A non-owning reference to a callable, so that handing work to the threads allocates nothing.
template <class Signature>
class FunctionRef;
template <class R, class... Args>
class FunctionRef<R(Args...)> {
 public:
  template <class F>
  requires(!std::is_same_v<std::remove_cvref_t<F>, FunctionRef>)
      FunctionRef(F&& f)  // NOLINT(google-explicit-constructor): meant to be passed a lambda
      : object_(const_cast<void*>(static_cast<const void*>(&f))), call_([](void* object, Args... args) -> R {
          return (*static_cast<std::remove_reference_t<F>*>(object))(args...);
        }) {}
  R operator()(Args... args) const { return call_(object_, args...); }

 private:
  void* object_;
  R (*call_)(void*, Args...);
};

/// A pool of threads with work stealing (oneTBB). Tiles are handed out dynamically, so a core that is busy elsewhere
/// just takes fewer of them.
class Workers {
 public:
  /// `threads` ≥ 1, the calling thread included; 0 means one per core that this process may use.
  explicit Workers(int threads = 0);
  ~Workers();
  Workers(Workers&&) noexcept;
  Workers& operator=(Workers&&) noexcept;

  int count() const;

  /// Inside a body of parallel_for: which of the threads runs it, 0 … count() − 1. No two bodies of one parallel_for
  /// that run at the same time see the same number.
  int index() const;

  /// Runs `body` inside the pool: parallel_for calls within it enter the pool without further cost. Several threads may
  /// call it at once; they share the pool.
  void enter(FunctionRef<void()> body) const;

  /// Calls body(begin, end) for disjoint ranges that cover [0, n), each a multiple of `grain` long but for the last.
  /// The ranges do not depend on the number of threads when every range is `grain` long, which is what callers may rely
  /// on for repeatable results; which thread takes which is left open. `body` must not throw.
  void parallel_for(std::int64_t n, std::int64_t grain, FunctionRef<void(std::int64_t, std::int64_t)> body) const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace weft
