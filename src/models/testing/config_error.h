#pragma once

#include <string>

#include "weft/error.h"

namespace weft::testing {

/// What a family's `validate` says of a Config; "no error" where it accepts it.
template <class Config>
std::string config_error(const Config& config) {
  try {
    validate(config);
  } catch (const ConfigError& error) {
    return error.what();
  }
  return "no error";
}

}  // namespace weft::testing
