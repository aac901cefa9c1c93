#include "io/pickle_globals.h"

#include <algorithm>
#include <array>

namespace weft::pickle {
namespace {

using enum GlobalKind;

constexpr auto kGlobals = std::to_array<GlobalEntry>({
    {"torch._utils", "_rebuild_tensor", kTensorV1},
    {"torch._utils", "_rebuild_tensor_v2", kTensorV2},
    {"torch._utils", "_rebuild_tensor_v3", kTensorV3},
    {"torch._utils", "_rebuild_parameter", kParameter},
    {"torch._utils", "_rebuild_parameter_with_state", kParameter},
    {"torch._tensor", "_rebuild_from_type_v2", kFromType},
    {"torch.nn.parameter", "Parameter", kClass},
    {"torch", "Tensor", kClass},

    {"torch", "DoubleStorage", kStorage, DType::kF64},
    {"torch", "FloatStorage", kStorage, DType::kF32},
    {"torch", "HalfStorage", kStorage, DType::kF16},
    {"torch", "BFloat16Storage", kStorage, DType::kBF16},
    {"torch", "LongStorage", kStorage, DType::kI64},
    {"torch", "IntStorage", kStorage, DType::kI32},
    {"torch", "ShortStorage", kStorage, DType::kI16},
    {"torch", "CharStorage", kStorage, DType::kI8},
    {"torch", "ByteStorage", kStorage, DType::kU8},
    {"torch", "BoolStorage", kStorage, DType::kBool},
    {"torch", "UntypedStorage", kStorage},
    {"torch.storage", "UntypedStorage", kStorage},

    {"torch", "float64", kDType, DType::kF64},
    {"torch", "float32", kDType, DType::kF32},
    {"torch", "float16", kDType, DType::kF16},
    {"torch", "bfloat16", kDType, DType::kBF16},
    {"torch", "int64", kDType, DType::kI64},
    {"torch", "int32", kDType, DType::kI32},
    {"torch", "int16", kDType, DType::kI16},
    {"torch", "int8", kDType, DType::kI8},
    {"torch", "uint8", kDType, DType::kU8},
    {"torch", "bool", kDType, DType::kBool},

    {"torch", "Size", kSequence},
    {"torch", "device", kDevice},

    {"collections", "OrderedDict", kDict},
    {"collections", "Counter", kDict},
    {"collections", "defaultdict", kFactory},
    {"yacs.config", "CfgNode", kDict},
    {"argparse", "Namespace", kAttributes},
    {"types", "SimpleNamespace", kAttributes},
    {"addict", "Dict", kAttributes},
    {"addict.addict", "Dict", kAttributes},
    {"mmcv.utils.config", "ConfigDict", kAttributes},
    {"mmengine.config.config", "ConfigDict", kAttributes},
    {"pathlib", "Path", kPath},
    {"pathlib", "PosixPath", kPath},
    {"pathlib", "PurePosixPath", kPath},
    {"pathlib", "WindowsPath", kPath},

    {"numpy", "dtype", kNumpyDType},
    {"numpy", "ndarray", kClass},
    {"numpy.core.multiarray", "scalar", kNumpyScalar},
    {"numpy._core.multiarray", "scalar", kNumpyScalar},
    {"numpy.core.multiarray", "_reconstruct", kOpaque},
    {"numpy._core.multiarray", "_reconstruct", kOpaque},

    {"_codecs", "encode", kEncode},
    {"copyreg", "_reconstructor", kReconstructor},
    {"copy_reg", "_reconstructor", kReconstructor},
    {"builtins", "object", kClass},
    {"__builtin__", "object", kClass},
    {"builtins", "dict", kDict},
    {"__builtin__", "dict", kDict},
    {"builtins", "list", kSequence},
    {"__builtin__", "list", kSequence},
    {"builtins", "tuple", kSequence},
    {"__builtin__", "tuple", kSequence},
    {"builtins", "set", kSequence},
    {"__builtin__", "set", kSequence},
    {"builtins", "frozenset", kSequence},
    {"__builtin__", "frozenset", kSequence},
    {"builtins", "int", kClass},
    {"__builtin__", "int", kClass},
    {"builtins", "float", kClass},
    {"__builtin__", "float", kClass},
});

}  // namespace

const GlobalEntry* find_global(std::string_view module, std::string_view name) {
  const auto* const found = std::ranges::find_if(
      kGlobals, [&](const GlobalEntry& entry) { return entry.module == module && entry.name == name; });
  return found == kGlobals.end() ? nullptr : &*found;
}

}  // namespace weft::pickle
