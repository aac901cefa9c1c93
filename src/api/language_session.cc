#include <algorithm>
#include <bit>
#include <mutex>

#include "api/compiled.h"
#include "api/memory_limit.h"
#include "api/model_data.h"
#include "core/format.h"
#include "core/hash.h"
#include "io/checkpoint.h"
#include "io/json.h"
#include "io/safetensors.h"
#include "ops/embedding/embedding.h"
#include "ops/linear/linear.h"
#include "weft/language.h"

namespace weft {
namespace {

// Tokens that are read at once: so many that products are at their best rate, and that working memory stays small.
constexpr std::int64_t kMostTokens = 256;

// What a file may say to have been read before: as much as JSON counts exactly.
constexpr std::uint64_t kMostRead = std::uint64_t{1} << 53;

constexpr const char* kKind = "weft.state";
constexpr const char* kModel = "weft.state.model";
constexpr const char* kTokens = "weft.state.tokens";
constexpr std::string_view kNote = "note.";

// The largest piece of so many tokens: few sizes make few plans.
std::int64_t whole_piece(std::int64_t tokens) {
  return static_cast<std::int64_t>(
      std::bit_floor(static_cast<std::uint64_t>(std::clamp<std::int64_t>(tokens, 1, kMostTokens))));
}

// Of names, shapes and the first bytes of all weights: tells models apart, not what somebody hides.
std::string fingerprint(const ModelData& data) {
  constexpr std::size_t kSample = 4096;
  Hash hash;
  const auto mix = [&](std::span<const std::byte> bytes) {
    for (const std::byte b : bytes) hash.add(static_cast<std::uint64_t>(b));
  };
  for (const auto& [name, weight] : data.weights) {
    mix(std::as_bytes(std::span(name)));
    const std::string type = weight.type().str();
    mix(std::as_bytes(std::span(type)));
    mix({weight.raw(), std::min(weight.bytes(), kSample)});
  }
  return fmt::format("{} {:016x}", data.architecture->family(), hash.value());
}

}  // namespace

struct LanguageSession::Impl {
  Impl(Model wanted, const SessionOptions& options)
      : model(std::move(wanted)),
        architecture(require_language(*model.data().architecture)),
        workers(options.threads),
        dtype(options.dtype),
        max_memory(options.max_memory),
        step(build_language_graph(architecture, 1, 1, LogitsOf::kLast)) {
    validate(options);
    // Converted here, once, where they have to be: plans of all lengths share the packed forms of these very tensors.
    const std::vector<bool> as_stored = taken_as_stored(*step);
    for (const int id : step->parameters()) {
      const std::string& name = step->value(id).name;
      const Tensor& weight = model.data().weights.at(name);
      weights.emplace(name, as_taken(weight, as_stored[static_cast<std::size_t>(id)]));
    }
  }

  // The plan for a piece of so many tokens. There are few sizes, so that plans are kept for good.
  Compiled& compiled(std::int64_t tokens, LogitsOf which) {
    const std::scoped_lock lock(mutex);
    std::unique_ptr<Compiled>& entry = plans[{tokens, which}];
    if (!entry) {
      const auto graph = build_language_graph(architecture, 1, tokens, which);
      entry = std::make_unique<Compiled>(*graph, weights, workers, packs, dtype);
    }
    return *entry;
  }

  // Pieces of 256 tokens, then of powers of two: any length by few plans.
  Tensor read(std::span<const std::int32_t> tokens, LanguageState& state, LogitsOf which) {
    require<ShapeError>(!tokens.empty(), "language", "at least one token is wanted, got none");
    for (const std::int32_t token : tokens) {
      require<ShapeError>(token >= 0 && token < architecture.vocab_size(), "language",
                          "the model knows tokens 0 … {}, got {}; is the tokenizer the model's?",
                          architecture.vocab_size() - 1, token);
    }
    require_own(state);
    LanguageState next = state;
    const auto vocabulary = static_cast<std::size_t>(architecture.vocab_size());
    Tensor all, logits;
    if (which == LogitsOf::kAll) {
      const std::int64_t bytes = static_cast<std::int64_t>(tokens.size() * vocabulary * sizeof(float));
      require_memory(max_memory, bytes, "logits");
      all = Tensor(DType::kF32, {static_cast<std::int64_t>(tokens.size()), architecture.vocab_size()});
    }
    std::size_t done = 0;
    while (done < tokens.size()) {
      const auto count = static_cast<std::size_t>(whole_piece(static_cast<std::int64_t>(tokens.size() - done)));
      logits = read_piece(tokens.subspan(done, count), next, which);
      if (which == LogitsOf::kAll) {
        std::ranges::copy(logits.data<float>(),
                          all.mutable_data<float>().subspan(done * vocabulary, count * vocabulary).begin());
      }
      done += count;
    }
    state = std::move(next);
    return which == LogitsOf::kAll ? all : logits.reshaped({architecture.vocab_size()});
  }

  Tensor read_piece(std::span<const std::int32_t> tokens, LanguageState& state, LogitsOf which) {
    Compiled& piece = compiled(static_cast<std::int64_t>(tokens.size()), which);
    std::vector<std::int64_t> numbers(tokens.begin(), tokens.end());
    std::vector<const std::byte*> in;
    for (const Plan::Port& port : piece.plan().inputs()) {
      const auto part = state.parts.find(port.name);
      in.push_back(part == state.parts.end() ? reinterpret_cast<const std::byte*>(numbers.data()) : part->second.raw());
    }
    std::vector<Tensor> outputs = piece.run(in, workers, max_memory);
    for (std::size_t i = 0; i + 1 < outputs.size(); ++i) {
      state.parts.find(piece.plan().outputs()[i].name)->second = std::move(outputs[i]);
    }
    state.tokens += static_cast<std::int64_t>(tokens.size());
    return outputs.back();
  }

  bool owns(const LanguageState& state) const {
    bool own = state.parts.size() == step->states().size();
    for (const Graph::State& s : step->states()) {
      const auto part = state.parts.find(step->value(s.input).name);
      own = own && part != state.parts.end() && part->second.type() == s.empty.type();
    }
    return own;
  }
  void require_own(const LanguageState& state) const {
    require<ShapeError>(owns(state), "language", "the state is of another model; start() makes one");
  }

  Model model;
  const LanguageArchitecture& architecture;
  Weights weights;
  Workers workers;
  DType dtype;
  std::int64_t max_memory;
  std::unique_ptr<Graph> step;  // for one token
  std::shared_ptr<PackCache> packs = make_packs(max_memory);
  std::mutex mutex;
  std::map<std::pair<std::int64_t, LogitsOf>, std::unique_ptr<Compiled>> plans;
};

LanguageSession::LanguageSession(Model model, const SessionOptions& options)
    : impl_(std::make_unique<Impl>(std::move(model), options)) {}
LanguageSession::~LanguageSession() = default;
LanguageSession::LanguageSession(LanguageSession&&) noexcept = default;
LanguageSession& LanguageSession::operator=(LanguageSession&&) noexcept = default;

const Model& LanguageSession::model() const { return impl_->model; }
int LanguageSession::threads() const { return impl_->workers.count(); }
DType LanguageSession::dtype() const { return impl_->dtype; }

LanguageState LanguageSession::start() const {
  LanguageState state;
  for (const Graph::State& s : impl_->step->states()) {
    state.parts.emplace(impl_->step->value(s.input).name, s.empty.clone());  // the caller may write into it
  }
  return state;
}

Tensor LanguageSession::read(std::span<const std::int32_t> tokens, LanguageState& state) const {
  return impl_->read(tokens, state, LogitsOf::kLast);
}

Tensor LanguageSession::read_all(std::span<const std::int32_t> tokens, LanguageState& state) const {
  return impl_->read(tokens, state, LogitsOf::kAll);
}

void LanguageSession::save(const std::filesystem::path& path, const SavedState& saved) const {
  impl_->require_own(saved.state);
  std::map<std::string, std::string> metadata = {
      {kKind, "1"}, {kModel, fingerprint(impl_->model.data())}, {kTokens, std::to_string(saved.state.tokens)}};
  for (const auto& [key, text] : saved.notes) metadata.emplace(std::string(kNote) + key, text);
  write_safetensors(path, {saved.state.parts.begin(), saved.state.parts.end()}, metadata);
}

SavedState LanguageSession::load(const std::filesystem::path& path) const {
  const FileBytes bytes = map_file(path);
  require<IoError>(is_safetensors(bytes.bytes), path.string(), "is no saved state: expected a safetensors file");
  const SafetensorsFile file = read_safetensors(bytes);
  const auto field = [&](const char* key) {
    const auto found = file.metadata.find(key);
    require<IoError>(found != file.metadata.end(), path.string(), "is no saved state: it has no {} in its metadata",
                     key);
    return found->second;
  };
  require<IoError>(field(kKind) == "1", path.string(), "is a state of format {}, this version reads 1",
                   printable(field(kKind), 20));
  const std::string own = fingerprint(impl_->model.data());
  require<ConfigError>(field(kModel) == own, path.string(), "is a state of another model ({}, this one is {})",
                       printable(field(kModel), 60), own);
  SavedState saved;
  for (const auto& [name, tensor] : file.tensors) {
    require<IoError>(all_finite(tensor), path.string(), "{} has values that are not finite", printable(name, 60));
    saved.state.parts.emplace(name, tensor.clone());
  }
  require<IoError>(impl_->owns(saved.state), path.string(),
                   "the state is of another model: its parts have other names or shapes");
  const Json tokens = parse_json(field(kTokens), fmt::format("{}: {}", path.string(), kTokens));
  require<IoError>(tokens.is_number_unsigned() && tokens.get<std::uint64_t>() <= kMostRead, path.string(),
                   "{} must be a whole number, 2^53 at most, got {}", kTokens, printable(field(kTokens), 40));
  saved.state.tokens = tokens.get<std::int64_t>();
  for (const auto& [key, text] : file.metadata) {
    if (key.starts_with(kNote)) saved.notes.emplace(key.substr(kNote.size()), text);
  }
  return saved;
}

std::int64_t LanguageSession::bytes_per_token() const {
  std::int64_t bytes = 0;
  for (const Graph::Node& node : impl_->step->nodes()) {
    for (std::size_t i = 0; i < node.inputs.size(); ++i) {
      const Graph::ValueInfo& value = impl_->step->value(node.inputs[i]);
      if (value.kind != Graph::Kind::kParameter || node.operation.as<Embedding>()) continue;
      const bool multiplied = node.operation.as<Linear>() && i == 1;
      const TensorType read{multiplied ? impl_->dtype : DType::kF32, value.type.shape};
      bytes += static_cast<std::int64_t>(read.bytes());
    }
  }
  return bytes;
}

std::int64_t LanguageSession::working_bytes(std::int64_t tokens) const {
  return static_cast<std::int64_t>(impl_->compiled(whole_piece(tokens), LogitsOf::kLast).plan().arena_bytes());
}

}  // namespace weft
