#include "weft/model.h"

#include "api/model_data.h"
#include "api/model_file.h"
#include "core/format.h"
#include "weft/weft.h"

namespace weft {

const char* version() { return WEFT_VERSION; }

Model Model::load(const std::filesystem::path& path, const LoadOptions& options) {
  return Model(std::make_shared<const ModelData>(read_model_file(path, options)));
}

Model Model::create(std::string_view preset, std::uint64_t seed, const LoadOptions& options) {
  const auto [family, found] = find_preset(preset);
  Json config = found->config;
  config.update(overrides_of(options));
  ModelData data;
  data.architecture = family->configure(config);
  data.preprocess = default_preprocess(*data.architecture);
  data.provenance = {{"preset", preset}, {"seed", seed}};
  data.weights = initial_weights(*data.architecture, seed);
  return Model(std::make_shared<const ModelData>(std::move(data)));
}

void Model::save(const std::filesystem::path& path) const { write_model_file(path, *data_); }

std::string_view Model::family() const { return data_->architecture->family(); }
std::string Model::config() const { return data_->architecture->config().dump(); }
const std::vector<std::string>& Model::labels() const { return data_->labels; }
const Preprocess& Model::preprocess() const { return data_->preprocess; }

Model Model::with_preprocess(const Preprocess& preprocess) const {
  validate(preprocess);
  ModelData data = *data_;
  data.preprocess = preprocess;
  return Model(std::make_shared<const ModelData>(std::move(data)));
}

Model Model::with_labels(std::vector<std::string> labels) const {
  require<ConfigError>(static_cast<int>(labels.size()) == classes(), "model", "labels must name {} classes, got {}",
                       classes(), labels.size());
  for (const std::string& label : labels) {
    require<ConfigError>(is_utf8(label), "model", "label {} is no UTF-8", printable(label, 60));
  }
  ModelData data = *data_;
  data.labels = std::move(labels);
  return Model(std::make_shared<const ModelData>(std::move(data)));
}

int Model::depth() const { return data_->architecture->depth(); }
int Model::in_channels() const {
  const PictureArchitecture* const pictures = data_->architecture->pictures();
  return pictures ? pictures->in_channels() : 0;
}
int Model::classes() const {
  const PictureArchitecture* const pictures = data_->architecture->pictures();
  return pictures ? pictures->classes() : 0;
}
int Model::vocab_size() const {
  const LanguageArchitecture* const language = data_->architecture->language();
  return language ? language->vocab_size() : 0;
}

std::int64_t Model::parameter_count() const { return native_graph(*data_->architecture)->parameter_count(); }

std::int64_t Model::macs(std::int64_t height, std::int64_t width) const {
  return build_graph(*data_->architecture, {1, in_channels(), height, width}, {})->macs();
}

}  // namespace weft
