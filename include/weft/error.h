// Every failure that weft reports is one of these exceptions. They are thrown while a model is built, loaded or
// validated and while inputs are checked, never from inside a running kernel. what() is one line in the form
//   [place] what is wrong: expected …, got …; remedy
#pragma once

#include <stdexcept>
#include <string>

#include "weft/api.h"

namespace weft {

/// Base of all exceptions thrown by weft.
class WEFT_API Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// A tensor has the wrong rank, extents or element type.
class WEFT_API ShapeError : public Error {
 public:
  using Error::Error;
};

/// An option or a configuration value is unknown, ill-typed or out of range.
class WEFT_API ConfigError : public Error {
 public:
  using Error::Error;
};

/// A checkpoint does not fit the model: missing, unexpected or mis-shaped tensors.
class WEFT_API WeightError : public Error {
 public:
  using Error::Error;
};

/// A file cannot be read, written or understood.
class WEFT_API IoError : public Error {
 public:
  using Error::Error;
};

/// A computation left the range of its numbers: a loss, a gradient or a value between is NaN or infinite.
class WEFT_API NumericError : public Error {
 public:
  using Error::Error;
};

/// More memory would be needed than was allowed.
class WEFT_API MemoryError : public Error {
 public:
  using Error::Error;
};

/// The request is sound but this build or this engine cannot serve it.
class WEFT_API UnsupportedError : public Error {
 public:
  using Error::Error;
};

}  // namespace weft
