#include "models/architecture.h"

#include <algorithm>

#include "core/format.h"

namespace weft {

#define WEFT_MODEL(room) \
  namespace room {       \
  Family make_family();  \
  }
#include "models/models.def"
#undef WEFT_MODEL

const PictureArchitecture& require_pictures(const Architecture& architecture) {
  require<UnsupportedError>(architecture.pictures() != nullptr, architecture.family(),
                            "reads text, not pictures; weft generate runs it");
  return *architecture.pictures();
}

const LanguageArchitecture& require_language(const Architecture& architecture) {
  require<UnsupportedError>(architecture.language() != nullptr, architecture.family(),
                            "reads pictures, not text; weft classify and weft features run it");
  return *architecture.language();
}

const Preset* matching_preset(const Family& family, const Json& config) {
  for (const Preset& preset : family.presets) {
    const auto same = [&](const char* option) {
      return config.value(option, Json()) == preset.config.value(option, Json());
    };
    if (std::ranges::all_of(family.extents, same)) return &preset;
  }
  return nullptr;
}

std::span<const Family> families() {
  static const std::vector<Family> all = {
#define WEFT_MODEL(room) room::make_family(),
#include "models/models.def"
#undef WEFT_MODEL
  };
  return all;
}

const Family& find_family(std::string_view name) {
  std::string known;
  for (const Family& family : families()) {
    if (family.name == name) return family;
    known += fmt::format(" {}", family.name);
  }
  fail<ConfigError>("models", "unknown family {}; there are:{}", printable(name), known);
}

std::pair<const Family*, const Preset*> find_preset(std::string_view name) {
  std::string known;
  for (const Family& family : families()) {
    for (const Preset& preset : family.presets) {
      if (preset.name == name) return {&family, &preset};
      known += fmt::format(" {}", preset.name);
    }
  }
  fail<ConfigError>("models", "{} is neither a file nor a preset; the presets are:{}", printable(name), known);
}

}  // namespace weft
