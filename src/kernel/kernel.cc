#include "kernel/kernel.h"

namespace weft {

Tensor PackCache::get(const Tensor& source, std::string_view layout, FunctionRef<Tensor()> pack) {
  const std::scoped_lock lock(mutex_);
  const auto [entry, is_new] = entries_.try_emplace({source.raw(), std::string(layout)});
  if (is_new) {
    try {
      entry->second = {source, pack()};
    } catch (...) {
      entries_.erase(entry);
      throw;
    }
  }
  return entry->second.packed;
}

}  // namespace weft
