#include "train/agreement.h"

#include "core/format.h"

namespace weft {

void require_agreement(Processes& processes, const Json& facts) {
  const auto all = processes.gather(dump(facts.flatten()), "the others to say what they train");
  const auto text = [](const Json& values, const std::string& key) {
    return values.contains(key) ? printable(dump(values[key]), 80) : "nothing";
  };
  const Json first = Json::parse(all[0]);
  for (std::size_t rank = 1; rank < all.size(); ++rank) {
    if (all[rank] == all[0]) continue;
    const Json other = Json::parse(all[rank]);
    Json keys = first;
    keys.update(other);
    for (const auto& [key, value] : keys.items()) {
      if (first.contains(key) && other.contains(key) && first[key] == other[key]) continue;
      fail<ConfigError>("processes", "{} is {} at rank {}, {} at rank 0; start all with the same",
                        printable(std::string_view(key).substr(1)), text(other, key), rank, text(first, key));
    }
  }
}

}  // namespace weft
