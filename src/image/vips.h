// What decoding and encoding share of libvips.
#pragma once

#include <vips/vips.h>

#include <memory>
#include <string>

namespace weft {

struct Unref {
  void operator()(void* object) const { g_object_unref(object); }
};
template <class T>
using Ref = std::unique_ptr<T, Unref>;

/// Starts libvips at the first picture. A process that has started it already keeps its settings. Throws IoError.
void init_vips();

/// Lets go what libvips keeps for a thread, when that leaves the scope.
struct ThreadCaches {
  ~ThreadCaches() { vips_thread_shutdown(); }
};

/// libvips' reason for a failure, in one line; empties its error buffer, of which there is one in a process.
std::string take_vips_error();

}  // namespace weft
