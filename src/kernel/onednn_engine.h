// What the files that talk to oneDNN share. Only they include this.
#pragma once

#include <omp.h>

#include <dnnl.hpp>
#include <initializer_list>
#include <string>

namespace weft::onednn {

inline const dnnl::engine& engine() {
  static const dnnl::engine cpu(dnnl::engine::kind::cpu, 0);
  return cpu;
}

inline dnnl::stream& stream() {
  thread_local dnnl::stream stream(engine());
  return stream;
}

/// While it lives, oneDNN calls from this thread stay on this thread.
class SingleThread {
 public:
  SingleThread() : previous_(omp_get_max_threads()) {
    if (previous_ != 1) omp_set_num_threads(1);
  }
  ~SingleThread() {
    if (previous_ != 1) omp_set_num_threads(previous_);
  }
  SingleThread(const SingleThread&) = delete;
  SingleThread& operator=(const SingleThread&) = delete;

 private:
  int previous_;
};

/// Tells layouts of packed weights apart.
inline std::string layout_key(const dnnl::memory::desc& desc) {
  return {reinterpret_cast<const char*>(&desc.data), sizeof desc.data};  // v2: a plain struct
}

/// primitive::execute without its map of arguments on the heap: tiles of few tokens would feel it.
inline void execute(const dnnl::primitive& primitive, std::initializer_list<dnnl_exec_arg_t> arguments) {
  dnnl::error::wrap_c_api(
      dnnl_primitive_execute(primitive.get(), stream().get(), static_cast<int>(arguments.size()), arguments.begin()),
      "cannot run a product");
}

}  // namespace weft::onednn
