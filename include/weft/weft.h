// All of weft's public interface.
#pragma once

#include "weft/error.h"
#include "weft/image.h"
#include "weft/language.h"
#include "weft/model.h"
#include "weft/tensor.h"
#include "weft/text.h"

namespace weft {

/// "0.1.0"
WEFT_API const char* version();

}  // namespace weft
