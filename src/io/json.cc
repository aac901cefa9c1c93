#include "io/json.h"

#include <string>
#include <unordered_set>
#include <utility>
#include <vector>

#include "core/format.h"

namespace weft {
namespace {

// Receives nlohmann's parse events. The objects are appended to directly: looking a key up in an ordered object is
// linear, which a header of many keys would turn quadratic.
class Builder {
 public:
  explicit Builder(std::string_view place) : place_(place) {}

  Json take() { return std::move(root_); }

  bool null() { return add(nullptr); }
  bool boolean(bool value) { return add(value); }
  bool number_integer(Json::number_integer_t value) { return add(value); }
  bool number_unsigned(Json::number_unsigned_t value) { return add(value); }
  bool number_float(Json::number_float_t value, const std::string& /*text*/) { return add(value); }
  bool string(std::string& value) { return add(std::move(value)); }
  bool binary(Json::binary_t& value) { return add(Json::binary(std::move(value))); }

  bool start_object(std::size_t /*size*/) { return open(Json::object()); }
  bool key(std::string& name) {
    const bool fresh = open_.back().keys.insert(name).second;
    require<IoError>(fresh, place_, "a JSON object has the key \"{}\" twice", printable(name));
    open_.back().key = std::move(name);
    return true;
  }
  bool end_object() { return close(); }
  bool start_array(std::size_t /*size*/) { return open(Json::array()); }
  bool end_array() { return close(); }

  bool parse_error(std::size_t /*position*/, const std::string& /*token*/, const Json::exception& error) {
    std::string_view what = error.what();  // "[json.exception.parse_error.101] parse error at line 1, column 2: …"
    if (const auto end = what.find("] "); end != std::string_view::npos) what.remove_prefix(end + 2);
    fail<IoError>(place_, "expected JSON: {}", printable(what));
  }

 private:
  struct Open {
    Json* container;
    std::unordered_set<std::string> keys;
    std::string key;
  };

  Json* place_value(Json value) {
    require<IoError>(++values_ <= kMaxJsonValues, place_, "the JSON has more than {} values", kMaxJsonValues);
    if (open_.empty()) {
      root_ = std::move(value);
      return &root_;
    }
    Open& parent = open_.back();
    if (parent.container->is_array()) {
      auto& items = parent.container->get_ref<Json::array_t&>();
      items.push_back(std::move(value));
      return &items.back();
    }
    using Entries = std::vector<std::pair<const std::string, Json>>;
    Entries& entries = parent.container->get_ref<Json::object_t&>();
    entries.emplace_back(std::move(parent.key), std::move(value));
    return &entries.back().second;
  }

  bool add(Json value) {
    place_value(std::move(value));
    return true;
  }

  bool open(Json container) {
    require<IoError>(open_.size() < kMaxJsonDepth, place_, "the JSON is nested deeper than {} levels", kMaxJsonDepth);
    Json* const added = place_value(std::move(container));
    open_.push_back({.container = added});
    return true;
  }

  bool close() {
    open_.pop_back();
    return true;
  }

  std::string_view place_;
  Json root_;
  std::vector<Open> open_;
  std::size_t values_ = 0;
};

}  // namespace

Json parse_json(std::string_view text, std::string_view place) {
  Builder builder(place);
  try {
    Json::sax_parse(text, &builder);
  } catch (const Json::exception& error) {
    fail<IoError>(place, "expected JSON: {}", printable(error.what()));
  }
  return builder.take();
}

}  // namespace weft
