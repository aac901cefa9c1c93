#include "io/pickle_objects.h"

#include <algorithm>
#include <cstring>

#include "core/format.h"
#include "core/half.h"

namespace weft::pickle {
namespace {

// Texts and bytes alike: Python 2 wrote both as the same type.
std::optional<std::string_view> characters(const Value& value) {
  if (const auto* text = std::get_if<Text>(&value)) return text->value;
  if (const auto* bytes = std::get_if<Bytes>(&value)) return bytes->value;
  return std::nullopt;
}

std::string name_of(const GlobalEntry& entry) { return fmt::format("{}.{}", entry.module, entry.name); }

bool makes_tensor(GlobalKind kind) {
  return kind == GlobalKind::kTensorV1 || kind == GlobalKind::kTensorV2 || kind == GlobalKind::kTensorV3 ||
         kind == GlobalKind::kParameter;
}

}  // namespace

ObjectBuilder::ObjectBuilder(Document& document, std::size_t input_bytes, std::string_view place)
    : document_(document), budget_((std::size_t{1} << 24) + 4 * input_bytes), place_(place) {}

Text ObjectBuilder::own(std::string text) { return {document_.texts.emplace_back(std::move(text))}; }
Sequence* ObjectBuilder::sequence(std::vector<Value> items) {
  return &document_.sequences.emplace_back(Sequence{std::move(items)});
}
Dict* ObjectBuilder::dict() { return &document_.dicts.emplace_back(); }

template <class T>
T ObjectBuilder::argument(const GlobalEntry& entry, const Args& args, std::size_t index) const {
  const T* value = index < args.size() ? std::get_if<T>(&args[index]) : nullptr;
  require<IoError>(value != nullptr, place_, "damaged pickle: argument {} of {} is missing or of the wrong type", index,
                   name_of(entry));
  return *value;
}

void ObjectBuilder::charge(std::size_t bytes) {
  require<IoError>(bytes <= budget_, place_, "the pickle copies more data than a file of its size has reason to");
  budget_ -= bytes;
}

void ObjectBuilder::update(Dict& to, const Value& from) {
  if (auto* const* other = std::get_if<Dict*>(&from)) {
    if (*other == &to) return;  // addict's dictionaries are their own state
    charge((*other)->entries.size() * sizeof(Dict::entries[0]));
    to.entries.insert(to.entries.end(), (*other)->entries.begin(), (*other)->entries.end());
  } else if (auto* const* pairs = std::get_if<Sequence*>(&from)) {
    charge((*pairs)->items.size() * sizeof(Dict::entries[0]));
    for (const Value& item : (*pairs)->items) {
      auto* const* pair = std::get_if<Sequence*>(&item);
      require<IoError>(pair != nullptr && (*pair)->items.size() == 2, place_,
                       "damaged pickle: a dictionary is made from something other than pairs");
      to.entries.emplace_back((*pair)->items[0], (*pair)->items[1]);
    }
  } else {
    fail<IoError>(place_, "damaged pickle: a dictionary is made from something else");
  }
}

Value ObjectBuilder::tensor(const GlobalEntry& entry, const Args& args, DType dtype) {
  const auto integers = [&](std::size_t index) {
    const auto* items = &argument<Sequence*>(entry, args, index)->items;
    require<IoError>(items->size() <= kMaxTensorRank, place_, "a tensor has {} axes: expected at most {}",
                     items->size(), kMaxTensorRank);
    std::vector<std::int64_t> out;
    for (std::size_t i = 0; i < items->size(); ++i) out.push_back(argument<std::int64_t>(entry, *items, i));
    return out;
  };
  TensorRef tensor{.storage = argument<const StorageRef*>(entry, args, 0),
                   .dtype = dtype,
                   .offset = argument<std::int64_t>(entry, args, 1),
                   .sizes = integers(2),
                   .strides = integers(3)};
  require<IoError>(tensor.sizes.size() == tensor.strides.size(), place_, "a tensor has {} sizes but {} strides",
                   tensor.sizes.size(), tensor.strides.size());
  return &std::as_const(document_.tensors.emplace_back(std::move(tensor)));
}

Value ObjectBuilder::rebuilt_tensor(const GlobalEntry& entry, const Args& args) {
  if (entry.kind == GlobalKind::kParameter) return argument<const TensorRef*>(entry, args, 0);
  const auto* storage = argument<const StorageRef*>(entry, args, 0);
  std::optional<DType> dtype = storage->dtype;
  if (entry.kind == GlobalKind::kTensorV3) {
    const GlobalEntry& named = *argument<Global>(entry, args, 6).entry;
    if (named.kind == GlobalKind::kDType) dtype = named.dtype;
  }
  require<IoError>(dtype.has_value(), place_, "damaged pickle: a tensor has no element type");
  return tensor(entry, args, *dtype);
}

Value ObjectBuilder::called_dict(const GlobalEntry& entry, const Args& args) {
  Dict* const made = dict();
  made->attributes = entry.kind == GlobalKind::kAttributes;
  const std::size_t first = entry.kind == GlobalKind::kFactory ? 1 : 0;
  if (args.size() > first) update(*made, args[first]);
  return made;
}

Value ObjectBuilder::from_type(const GlobalEntry& entry, const Args& args) {
  const GlobalEntry& function = *argument<Global>(entry, args, 0).entry;
  require<IoError>(makes_tensor(function.kind), place_, "damaged pickle: {} is asked to call {}", name_of(entry),
                   name_of(function));
  return rebuilt_tensor(function, argument<Sequence*>(entry, args, 2)->items);
}

Value ObjectBuilder::reconstructed(const GlobalEntry& entry, const Args& args) {
  const GlobalEntry& made = *argument<Global>(entry, args, 0).entry;
  const bool plain = made.kind == GlobalKind::kDict || made.kind == GlobalKind::kAttributes;
  require<IoError>(plain, place_, "damaged pickle: {} is asked to make a {}", name_of(entry), name_of(made));
  const bool has_state = args.size() > 2 && std::holds_alternative<Dict*>(args[2]);
  return called_dict(made, has_state ? Args{args[2]} : Args{});
}

Value ObjectBuilder::joined(const Args& args, std::string_view separator, const GlobalEntry& entry) {
  std::string out;
  for (const Value& part : args) {
    std::string text;
    if (const auto* index = std::get_if<std::int64_t>(&part)) {
      text = std::to_string(*index);
    } else {
      const auto* word = std::get_if<Text>(&part);
      require<IoError>(word != nullptr, place_, "damaged pickle: {} is made from something other than texts",
                       name_of(entry));
      text = word->value;
    }
    charge(text.size() + separator.size());
    if (!out.empty() && !out.ends_with(separator)) out += separator;
    out += text;
  }
  return own(std::move(out));
}

Value ObjectBuilder::numpy_scalar(const GlobalEntry& entry, const Args& args) {
  const auto* dtype = argument<const Opaque*>(entry, args, 0);
  const auto data = args.size() > 1 ? characters(args[1]) : std::nullopt;
  std::string_view code = dtype->detail;
  if (code.starts_with('<') || code.starts_with('|') || code.starts_with('=')) code.remove_prefix(1);
  std::optional<Value> number;
  const auto as = [&]<class T>(std::string_view name, T value, auto convert) {
    if (number || code != name || !data || data->size() != sizeof(T)) return;
    std::memcpy(&value, data->data(), sizeof(T));
    number = convert(value);
  };
  const auto integer = [](auto x) { return Value(static_cast<std::int64_t>(x)); };
  const auto floating = [](auto x) { return Value(static_cast<double>(x)); };
  as("f8", double{}, floating);
  as("f4", float{}, floating);
  as("f2", Half{}, [](Half x) { return Value(static_cast<double>(to_float(x))); });
  as("i8", std::int64_t{}, integer);
  as("i4", std::int32_t{}, integer);
  as("i2", std::int16_t{}, integer);
  as("i1", std::int8_t{}, integer);
  as("u1", std::uint8_t{}, integer);
  as("u2", std::uint16_t{}, integer);
  as("u4", std::uint32_t{}, integer);
  as("b1", std::uint8_t{}, [](std::uint8_t x) { return Value(x != 0); });
  if (number) return *number;
  return &std::as_const(document_.opaques.emplace_back(Opaque{.type = "numpy.generic"}));
}

// Protocol 2, which torch.save uses, has no bytes: Python writes them as the Latin-1 characters of a text.
Value ObjectBuilder::encoded(const GlobalEntry& entry, const Args& args) {
  std::string_view text = argument<Text>(entry, args, 0).value;
  charge(text.size());
  std::string out;
  while (!text.empty()) {
    const auto lead = static_cast<unsigned char>(text[0]);
    const std::size_t length = utf8_length(text);
    const bool latin = length == 1 || (length == 2 && lead <= 0xC3);
    require<IoError>(latin, place_, "damaged pickle: {} of a text beyond Latin-1", name_of(entry));
    out += length == 1 ? text[0]
                       : static_cast<char>(((lead & 0x03U) << 6) | (static_cast<unsigned char>(text[1]) & 0x3FU));
    text.remove_prefix(length);
  }
  return Bytes{own(std::move(out)).value};
}

Value ObjectBuilder::call(const GlobalEntry& entry, const Args& args) {
  switch (entry.kind) {
    case GlobalKind::kDict:
    case GlobalKind::kAttributes:
    case GlobalKind::kFactory:
      return called_dict(entry, args);
    case GlobalKind::kSequence: {
      if (args.empty()) return sequence({});
      const auto& items = argument<Sequence*>(entry, args, 0)->items;
      charge(items.size() * sizeof(Value));
      return sequence(items);
    }
    case GlobalKind::kTensorV1:
    case GlobalKind::kTensorV2:
    case GlobalKind::kTensorV3:
    case GlobalKind::kParameter:
      return rebuilt_tensor(entry, args);
    case GlobalKind::kFromType:
      return from_type(entry, args);
    case GlobalKind::kDevice:
      return joined(args, ":", entry);
    case GlobalKind::kPath:
      return joined(args, "/", entry);
    case GlobalKind::kNumpyDType:
      return &std::as_const(document_.opaques.emplace_back(
          Opaque{.type = "numpy.dtype", .detail = argument<Text>(entry, args, 0).value}));
    case GlobalKind::kNumpyScalar:
      return numpy_scalar(entry, args);
    case GlobalKind::kEncode:
      return encoded(entry, args);
    case GlobalKind::kReconstructor:
      return reconstructed(entry, args);
    case GlobalKind::kOpaque:
      return &std::as_const(document_.opaques.emplace_back(Opaque{.type = "numpy.ndarray"}));
    case GlobalKind::kStorage:
    case GlobalKind::kDType:
    case GlobalKind::kClass:
      break;
  }
  fail<IoError>(place_, "damaged pickle: it calls {}", name_of(entry));
}

void ObjectBuilder::build(const Value& object, const Value& state) {
  const bool callable = std::holds_alternative<Global>(object);
  require<IoError>(!callable, place_, "damaged pickle: it sets the state of a class or function");
  if (const auto* opaque = std::get_if<const Opaque*>(&object); opaque && (*opaque)->type == "numpy.dtype") {
    auto* const* fields = std::get_if<Sequence*>(&state);
    const bool ordered = fields != nullptr && (*fields)->items.size() > 1;
    const auto order = ordered ? characters((*fields)->items[1]) : std::nullopt;
    require<IoError>(order != ">", place_, "big-endian NumPy values are not supported");
  }
  // The state of everything else is what weft has no use for, such as the _metadata of a state_dict.
  auto* const* target = std::get_if<Dict*>(&object);
  if (target != nullptr && (*target)->attributes && !std::holds_alternative<None>(state)) update(**target, state);
}

Value ObjectBuilder::storage(const Value& id) {
  auto* const* fields = std::get_if<Sequence*>(&id);
  const bool shaped = fields != nullptr && (*fields)->items.size() >= 5;
  const Text* kind = shaped ? std::get_if<Text>(&(*fields)->items[0]) : nullptr;
  const Global* type = shaped ? std::get_if<Global>(&(*fields)->items[1]) : nullptr;
  const Text* key = shaped ? std::get_if<Text>(&(*fields)->items[2]) : nullptr;
  const auto* elements = shaped ? std::get_if<std::int64_t>(&(*fields)->items[4]) : nullptr;
  const bool sound = kind != nullptr && kind->value == "storage" && type != nullptr &&
                     type->entry->kind == GlobalKind::kStorage && key != nullptr && elements != nullptr &&
                     *elements >= 0;
  require<IoError>(sound, place_, "damaged pickle: a persistent id is not that of a torch storage");
  return &std::as_const(document_.storages.emplace_back(
      StorageRef{.key = key->value, .dtype = type->entry->dtype, .elements = *elements}));
}

}  // namespace weft::pickle
