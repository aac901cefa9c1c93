// From the tensors of a checkpoint, or from the official code's configuration, to a Config.
#include <array>
#include <utility>

#include "core/format.h"
#include "models/recogniser.h"
#include "models/rwkv4/rwkv4.h"

namespace weft::rwkv4 {
namespace {

constexpr std::string_view kDecay = "blocks.0.att.time_decay";
constexpr std::string_view kHidden = "blocks.0.ffn.key.weight";

// Parts of names in Hugging Face's layout, and the official ones.
constexpr std::array<std::pair<std::string_view, std::string_view>, 8> kWords = {{
    {"rwkv.", ""},
    {"embeddings.", "emb."},
    {".pre_ln.", ".ln0."},
    {".attention.", ".att."},
    {".feed_forward.", ".ffn."},
    {".time_mix_key", ".time_mix_k"},
    {".time_mix_value", ".time_mix_v"},
    {".time_mix_receptance", ".time_mix_r"},
}};

std::string official_name(std::string name) {
  for (const auto& [from, to] : kWords) {
    const std::size_t at = name.find(from);
    if (at != name.npos && (from != "rwkv." || at == 0)) name.replace(at, from.size(), to);
  }
  return name;
}

// The official names by the file's, where the file is in Hugging Face's layout.
std::map<std::string, std::string> renamed_words(const TensorIndex& tensors) {
  std::map<std::string, std::string> renamed;
  if (!tensors.contains("rwkv.blocks.0.attention.time_decay")) return renamed;
  for (const auto& [name, type] : tensors) {
    if (official_name(name) != name) renamed.emplace(name, official_name(name));
  }
  return renamed;
}

}  // namespace

std::optional<Recognition> recognise(const TensorIndex& tensors, const Json& overrides) {
  std::map<std::string, std::string> renamed = renamed_words(tensors);
  TensorIndex official;
  for (const auto& [name, type] : tensors) {
    const auto other = renamed.find(name);
    official.emplace(other == renamed.end() ? name : other->second, type);
  }
  const auto layout = Layout::find(official, Config::kFamily, {kDecay, "emb.weight", "head.weight", kHidden});
  if (!layout) return std::nullopt;
  Recogniser<Config> r(*layout, overrides);
  r.found_extent(&Config::vocab_size, "emb.weight", 2, 0);
  r.found_extent(&Config::n_embd, "emb.weight", 2, 1);
  r.found(&Config::n_layer, layout->count("blocks", "att.time_decay"),
          fmt::format("number of {}.*", layout->in_file("blocks")));
  r.found_extent(&Config::dim_att, kDecay, 1, 0);
  r.found_extent(&Config::dim_ffn, kHidden, 2, 0);
  for (auto& [from, to] : layout->renamed("")) renamed.emplace(from, to);
  return r.done(std::move(renamed));
}

std::optional<Config> from_official(std::string_view system, const Json& model, const TensorIndex& tensors) {
  if (system != "rwkv4-lm") return std::nullopt;
  const Json options =
      official_options(model, Config::kFamily, {"weights_dtype", "ctx_len", "head_qk", "tiny_att_dim", "pre_ffn"});
  Config config;
  const auto recognised = recognise(tensors, Json::object());
  if (recognised) config_from_json(recognised->config, config, Config::kFamily);
  config_from_json(options, config, Config::kFamily);
  return config;
}

}  // namespace weft::rwkv4
