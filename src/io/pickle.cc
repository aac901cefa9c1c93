#include "io/pickle.h"

#include <algorithm>
#include <bit>
#include <charconv>
#include <limits>
#include <unordered_map>

#include "core/format.h"
#include "io/pickle_globals.h"
#include "io/pickle_objects.h"

namespace weft::pickle {
namespace {

void append_utf8(std::string& out, std::uint32_t point) {
  const auto tail = [&](int shift) { out += static_cast<char>(0x80U | ((point >> shift) & 0x3FU)); };
  if (point < 0x80) {
    out += static_cast<char>(point);
  } else if (point < 0x800) {
    out += static_cast<char>(0xC0U | (point >> 6));
    tail(0);
  } else if (point < 0x10000) {
    out += static_cast<char>(0xE0U | (point >> 12));
    tail(6), tail(0);
  } else {
    out += static_cast<char>(0xF0U | (point >> 18));
    tail(12), tail(6), tail(0);
  }
}

class Machine {
 public:
  Machine(std::span<const std::byte> bytes, std::string_view place)
      : text_(reinterpret_cast<const char*>(bytes.data()), bytes.size()),
        place_(place),
        objects_(document_, bytes.size(), place) {}

  Document run() {
    for (std::size_t steps = 0; steps < kMaxPickleSteps; ++steps) {
      const auto opcode = static_cast<unsigned char>(take(1)[0]);
      if (opcode == '.') {
        document_.root = pop();
        return std::move(document_);
      }
      if (!read_scalar(opcode) && !read_container(opcode) && !read_machinery(opcode)) {
        fail<IoError>(place_, "damaged pickle: unknown opcode 0x{:02x} at byte {}", opcode, position_ - 1);
      }
    }
    fail<IoError>(place_, "the pickle has more than {} steps", kMaxPickleSteps);
  }

 private:
  // --- the input ---
  std::string_view take(std::uint64_t count) {
    require<IoError>(count <= text_.size() - position_, place_, "damaged pickle: it is cut short at byte {}",
                     text_.size());
    const std::string_view out = text_.substr(position_, count);
    position_ += count;
    return out;
  }
  std::string_view line() {
    const auto end = text_.find('\n', position_);
    require<IoError>(end != std::string_view::npos, place_, "damaged pickle: it is cut short at byte {}", text_.size());
    const std::string_view out = take(end - position_);
    take(1);
    return out;
  }
  // An unsigned little-endian number of `size` bytes.
  std::uint64_t number(std::size_t size) {
    std::uint64_t out = 0;
    const std::string_view digits = take(size);
    for (std::size_t i = size; i-- > 0;) out = out << 8 | static_cast<unsigned char>(digits[i]);
    return out;
  }

  // --- the stack ---
  std::size_t fence() const { return marks_.empty() ? 0 : marks_.back(); }
  void push(Value value) { stack_.push_back(value); }
  Value& top() {
    require<IoError>(stack_.size() > fence(), place_, "damaged pickle: its stack is empty at byte {}", position_);
    return stack_.back();
  }
  Value pop() {
    const Value out = top();
    stack_.pop_back();
    return out;
  }
  std::vector<Value> pop_mark() {
    require<IoError>(!marks_.empty(), place_, "damaged pickle: there is no mark at byte {}", position_);
    const auto first = stack_.begin() + static_cast<std::ptrdiff_t>(marks_.back());
    std::vector<Value> out(first, stack_.end());
    stack_.erase(first, stack_.end());
    marks_.pop_back();
    return out;
  }
  template <class T>
  T expect(const Value& value, std::string_view what) const {
    const T* out = std::get_if<T>(&value);
    require<IoError>(out != nullptr, place_, "damaged pickle: expected {} at byte {}", what, position_);
    return *out;
  }
  // Not a copy: a short pickle may pass the same long tuple again and again.
  const std::vector<Value>& pop_arguments() { return expect<Sequence*>(pop(), "a tuple of arguments")->items; }

  // --- scalars ---
  void push_text(std::string_view text) {
    require<IoError>(is_utf8(text), place_, "damaged pickle: a text at byte {} is not UTF-8", position_);
    push(Text{text});
  }
  // Python 2's str: text where it can be.
  void push_str(std::string_view text) {
    if (is_utf8(text)) {
      push(Text{text});
    } else {
      push(Bytes{text});
    }
  }
  // A signed little-endian number of any size; one beyond 64 bits becomes its hexadecimal digits.
  void push_long(std::string_view bytes) {
    const bool negative = !bytes.empty() && (static_cast<unsigned char>(bytes.back()) & 0x80U) != 0;
    if (bytes.size() > 8) {
      std::string hex = "0x";
      for (std::size_t i = bytes.size(); i-- > 0;) hex += fmt::format("{:02x}", static_cast<unsigned char>(bytes[i]));
      return push(objects_.own(std::move(hex)));
    }
    std::uint64_t value = negative ? ~std::uint64_t{0} : 0;
    for (std::size_t i = bytes.size(); i-- > 0;) value = value << 8 | static_cast<unsigned char>(bytes[i]);
    push(static_cast<std::int64_t>(value));
  }
  void push_decimal(std::string_view digits) {
    std::int64_t value = 0;
    const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value);
    const bool whole = end == digits.data() + digits.size() && !digits.empty();
    if (whole && error == std::errc::result_out_of_range) return push_text(digits);
    require<IoError>(whole && error == std::errc{}, place_, "damaged pickle: '{}' is no integer",
                     printable(digits, 40));
    push(value);
  }
  void push_float(std::string_view digits) {
    double value = 0;
    const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value);
    const bool whole = end == digits.data() + digits.size() && !digits.empty();
    require<IoError>(whole && error == std::errc{}, place_, "damaged pickle: '{}' is no number", printable(digits, 40));
    push(value);
  }
  // Protocol 0's texts: \uhhhh and \Uhhhhhhhh in Unicode ones; \xhh and \n, \', … in Python 2's str, which come quoted.
  std::string unescape(std::string_view text, bool unicode) {
    std::string out;
    const auto hex = [&](std::size_t digits) {
      std::uint32_t point = 0;
      const auto [end, error] = std::from_chars(text.data(), text.data() + std::min(digits, text.size()), point, 16);
      require<IoError>(error == std::errc{} && end == text.data() + digits, place_, "damaged pickle: a bad escape");
      text.remove_prefix(digits);
      return point;
    };
    while (!text.empty()) {
      const char c = text[0];
      text.remove_prefix(1);
      const char next = c == '\\' && !text.empty() ? text[0] : '\0';
      const bool known = next != '\0' && (unicode ? next == 'u' || next == 'U' : true);
      if (!known) {
        if (unicode) {
          append_utf8(out, static_cast<unsigned char>(c));  // raw-unicode-escape is Latin-1 but for its escapes
        } else {
          out += c;
        }
        continue;
      }
      text.remove_prefix(1);
      if (unicode) {
        append_utf8(out, hex(next == 'u' ? 4 : 8) & 0x1FFFFFU);
      } else if (next == 'x') {
        out += static_cast<char>(hex(2));
      } else {
        constexpr std::string_view kNames = "ntr";
        constexpr std::string_view kMeanings = "\n\t\r";
        const auto index = kNames.find(next);
        out += index == std::string_view::npos ? next : kMeanings[index];
      }
    }
    return out;
  }
  void push_quoted(std::string_view text) {
    const bool quoted = text.size() >= 2 && text.front() == text.back() && (text[0] == '\'' || text[0] == '"');
    require<IoError>(quoted, place_, "damaged pickle: a string is not quoted");
    push_str(objects_.own(unescape(text.substr(1, text.size() - 2), false)).value);
  }

  bool read_scalar(unsigned char opcode) {
    switch (opcode) {
      case 'N':  // NONE
        return push(None{}), true;
      case 0x88:  // NEWTRUE
      case 0x89:  // NEWFALSE
        return push(opcode == 0x88), true;
      case 'I': {  // INT, and protocol 0's booleans
        const std::string_view digits = line();
        if (digits == "00" || digits == "01") return push(digits == "01"), true;
        return push_decimal(digits), true;
      }
      case 'J':  // BININT
        return push(static_cast<std::int64_t>(static_cast<std::int32_t>(number(4)))), true;
      case 'K':  // BININT1
        return push(static_cast<std::int64_t>(number(1))), true;
      case 'M':  // BININT2
        return push(static_cast<std::int64_t>(number(2))), true;
      case 'L': {  // LONG
        std::string_view digits = line();
        if (digits.ends_with('L')) digits.remove_suffix(1);
        return push_decimal(digits), true;
      }
      case 0x8A:  // LONG1
        return push_long(take(number(1))), true;
      case 0x8B:  // LONG4
        return push_long(take(number(4))), true;
      case 'F':  // FLOAT
        return push_float(line()), true;
      case 'G': {  // BINFLOAT, big-endian
        std::uint64_t bits = 0;
        for (const char c : take(8)) bits = bits << 8 | static_cast<unsigned char>(c);
        return push(std::bit_cast<double>(bits)), true;
      }
      case 'S':  // STRING
        return push_quoted(line()), true;
      case 'T':  // BINSTRING
        return push_str(take(number(4))), true;
      case 'U':  // SHORT_BINSTRING
        return push_str(take(number(1))), true;
      case 'V':  // UNICODE
        return push_text(objects_.own(unescape(line(), true)).value), true;
      case 0x8C:  // SHORT_BINUNICODE
        return push_text(take(number(1))), true;
      case 'X':  // BINUNICODE
        return push_text(take(number(4))), true;
      case 0x8D:  // BINUNICODE8
        return push_text(take(number(8))), true;
      case 'C':  // SHORT_BINBYTES
        return push(Bytes{take(number(1))}), true;
      case 'B':  // BINBYTES
        return push(Bytes{take(number(4))}), true;
      case 0x8E:  // BINBYTES8
      case 0x96:  // BYTEARRAY8
        return push(Bytes{take(number(8))}), true;
      default:
        return false;
    }
  }

  // --- containers ---
  void push_tuple(std::size_t size) {
    std::vector<Value> items(size);
    for (std::size_t i = size; i-- > 0;) items[i] = pop();
    push(objects_.sequence(std::move(items)));
  }
  void append(const std::vector<Value>& items) {
    auto& list = expect<Sequence*>(top(), "a list")->items;
    list.insert(list.end(), items.begin(), items.end());
  }
  void set_items(const std::vector<Value>& items) {
    require<IoError>(items.size() % 2 == 0, place_, "damaged pickle: a key has no value at byte {}", position_);
    auto& entries = expect<Dict*>(top(), "a dictionary")->entries;
    for (std::size_t i = 0; i < items.size(); i += 2) entries.emplace_back(items[i], items[i + 1]);
  }

  bool read_container(unsigned char opcode) {
    switch (opcode) {
      case ')':   // EMPTY_TUPLE
      case ']':   // EMPTY_LIST
      case 0x8F:  // EMPTY_SET
        return push(objects_.sequence({})), true;
      case 0x85:  // TUPLE1
      case 0x86:  // TUPLE2
      case 0x87:  // TUPLE3
        return push_tuple(opcode - 0x84U), true;
      case 't':   // TUPLE
      case 'l':   // LIST
      case 0x91:  // FROZENSET
        return push(objects_.sequence(pop_mark())), true;
      case 'a': {  // APPEND
        const Value item = pop();
        return append({item}), true;
      }
      case 'e':   // APPENDS
      case 0x90:  // ADDITEMS
        return append(pop_mark()), true;
      case '}':  // EMPTY_DICT
        return push(objects_.dict()), true;
      case 'd': {  // DICT
        const std::vector<Value> items = pop_mark();
        push(objects_.dict());
        return set_items(items), true;
      }
      case 's': {  // SETITEM
        const Value value = pop();
        const Value key = pop();
        return set_items({key, value}), true;
      }
      case 'u':  // SETITEMS
        return set_items(pop_mark()), true;
      default:
        return false;
    }
  }

  // --- names, calls, the memo ---
  Value global(std::string_view module, std::string_view name) const {
    const GlobalEntry* entry = find_global(module, name);
    if (entry != nullptr) return Global{entry};
    const bool tensor = module == "torch._utils" || (module == "torch" && name.ends_with("Storage"));
    require<IoError>(!tensor, place_,
                     "a tensor is stored through {}.{}: expected dense tensors of float, bfloat16, integer or bool "
                     "elements; convert it before saving",
                     printable(module, 80), printable(name, 80));
    fail<IoError>(place_,
                  "pickle wants to call {}.{}: expected only tensors and plain data; the file may be malicious, or was "
                  "saved with a whole Python object: save model.state_dict() instead",
                  printable(module, 80), printable(name, 80));
  }
  void call(const Value& callable, const std::vector<Value>& args) {
    push(objects_.call(*expect<Global>(callable, "a function or class").entry, args));
  }
  void remember(std::uint64_t index) { memo_[index] = top(); }
  void recall(std::uint64_t index) {
    const auto found = memo_.find(index);
    require<IoError>(found != memo_.end(), place_, "damaged pickle: there is no memo {}", index);
    push(found->second);
  }
  std::uint64_t line_number() {
    const std::string_view digits = line();
    std::uint64_t value = 0;
    const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value);
    require<IoError>(error == std::errc{} && end == digits.data() + digits.size(), place_,
                     "damaged pickle: '{}' is no memo", printable(digits, 40));
    return value;
  }

  bool read_call(unsigned char opcode) {
    switch (opcode) {
      case 'c': {  // GLOBAL
        const std::string_view module = line();
        return push(global(module, line())), true;
      }
      case 0x93: {  // STACK_GLOBAL
        const auto name = expect<Text>(pop(), "a name");
        const auto module = expect<Text>(pop(), "a module's name");
        return push(global(module.value, name.value)), true;
      }
      case 'R':     // REDUCE
      case 0x81: {  // NEWOBJ
        const auto& args = pop_arguments();
        return call(pop(), args), true;
      }
      case 0x92: {  // NEWOBJ_EX
        const auto* named = expect<Dict*>(pop(), "named arguments");
        require<IoError>(named->entries.empty(), place_, "the pickle calls a class with named arguments");
        const auto& args = pop_arguments();
        return call(pop(), args), true;
      }
      case 'i': {  // INST
        const std::string_view module = line();
        const Value callable = global(module, line());
        return call(callable, pop_mark()), true;
      }
      case 'o': {  // OBJ
        std::vector<Value> args = pop_mark();
        require<IoError>(!args.empty(), place_, "damaged pickle: an object has no class");
        const Value callable = args.front();
        args.erase(args.begin());
        return call(callable, args), true;
      }
      case 'b': {  // BUILD
        const Value state = pop();
        return objects_.build(top(), state), true;
      }
      case 'Q':  // BINPERSID
        return push(objects_.storage(pop())), true;
      default:
        return false;
    }
  }

  bool read_machinery(unsigned char opcode) {
    switch (opcode) {
      case 0x80: {  // PROTO
        const std::uint64_t protocol = number(1);
        require<IoError>(protocol <= 5, place_, "pickle protocol {} is unknown: expected 0 to 5", protocol);
        return true;
      }
      case 0x95:  // FRAME: how many bytes to read ahead
        return number(8), true;
      case '(':  // MARK
        return marks_.push_back(stack_.size()), true;
      case '0':  // POP
        return pop(), true;
      case '1':  // POP_MARK
        return pop_mark(), true;
      case '2': {  // DUP
        const Value value = top();
        return push(value), true;
      }
      case 'p':  // PUT
        return remember(line_number()), true;
      case 'q':  // BINPUT
        return remember(number(1)), true;
      case 'r':  // LONG_BINPUT
        return remember(number(4)), true;
      case 0x94:  // MEMOIZE
        return remember(memo_.size()), true;
      case 'g':  // GET
        return recall(line_number()), true;
      case 'h':  // BINGET
        return recall(number(1)), true;
      case 'j':  // LONG_BINGET
        return recall(number(4)), true;
      default:
        return read_call(opcode);
    }
  }

  std::string_view text_;
  std::string_view place_;
  Document document_;
  ObjectBuilder objects_;
  std::size_t position_ = 0;
  std::vector<Value> stack_;
  std::vector<std::size_t> marks_;
  std::unordered_map<std::uint64_t, Value> memo_;
};

}  // namespace

const Value* Dict::find(std::string_view key) const {
  for (auto entry = entries.rbegin(); entry != entries.rend(); ++entry) {
    const Text* text = std::get_if<Text>(&entry->first);
    if (text != nullptr && text->value == key) return &entry->second;
  }
  return nullptr;
}

Document read(std::span<const std::byte> bytes, std::string_view place) {
  require<IoError>(bytes.size() <= kMaxPickleBytes, place, "its pickle has {} bytes: expected at most {}", bytes.size(),
                   kMaxPickleBytes);
  return Machine(bytes, place).run();
}

}  // namespace weft::pickle
