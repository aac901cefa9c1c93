// Speed of language models: reading a prompt, and generating token by token.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "common.h"

namespace weft::cli {

struct LanguageBench {
  std::vector<std::string> models;  // presets or files
  LoadOptions load;
  std::vector<int> threads;
  std::vector<DType> dtypes;
  double min_time = 1;
  std::int64_t max_memory = 0;
  bool json = false;
};

/// Measures each combination and prints its line.
void bench_language(const LanguageBench& bench);

}  // namespace weft::cli
