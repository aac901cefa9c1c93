#include "train/text_task.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <functional>
#include <numbers>

#include "core/format.h"
#include "data/token_data.h"
#include "train/cross_entropy.h"
#include "train/start.h"
#include "weft/language.h"

namespace weft {
namespace {

// How sure a model is of what follows in a text that it has not learned from.
class TextScore {
 public:
  explicit TextScore(const std::optional<Tokenizer>& tokenizer) : tokenizer_(tokenizer) {}

  // Logits [T,V], targets [T].
  void add(std::span<const float> logits, std::span<const std::int64_t> targets) {
    const std::size_t vocabulary = logits.size() / targets.size();
    for (std::size_t t = 0; t < targets.size(); ++t) {
      loss_ += cross_entropy(logits.subspan(t * vocabulary, vocabulary), static_cast<std::size_t>(targets[t]));
      if (tokenizer_) bytes_ += static_cast<double>(tokenizer_->bytes_of(static_cast<std::int32_t>(targets[t])).size());
      ++tokens_;
    }
  }
  // Over all processes, each of which has read its part.
  void fill(EvalReport& report, Processes& processes) const {
    std::array sums = {static_cast<double>(tokens_), loss_, bytes_};
    processes.sum(sums, Pace::kOwn, "the others to judge the model on their text");
    report.samples = static_cast<std::int64_t>(sums[0]);
    report.loss = sums[1] / std::max(sums[0], 1.0);
    report.measures = {{"perplexity", std::exp(report.loss)}};
    if (sums[2] > 0) report.measures.emplace_back("bits_per_byte", sums[1] / sums[2] / std::numbers::ln2);
  }

 private:
  const std::optional<Tokenizer>& tokenizer_;
  std::int64_t tokens_ = 0;
  double loss_ = 0;
  double bytes_ = 0;
};

void check_text_keys(const TrainConfig& c) {
  std::string senseless;
  const auto expect = [&](bool unset, std::string_view key) {
    if (!unset) senseless += fmt::format("{}{}", senseless.empty() ? "" : ", ", key);
  };
  expect(c.image_size == 0, "image_size");
  expect(c.eval_resize == 0, "eval_resize");
  expect(!c.mean, "mean");
  expect(!c.std, "std");
  expect(c.augment == Augment{}, "augment");
  expect(c.drop_path == 0, "drop_path");
  const std::string model = printable(c.from.empty() ? c.model : c.from, 200);
  require<ConfigError>(senseless.empty(), "train",
                       "the model {} reads text: {} must not be set; --recipe text sets what is for text", model,
                       senseless);
  require<ConfigError>(
      c.ctx_len > 0, "train",
      "ctx_len must be 1 … 1048576, got 0: the model {} reads text; --recipe text sets what is for text", model);
}

std::optional<Tokenizer> open_tokenizer(const std::string& name) {
  if (name.empty()) return std::nullopt;
  return name == "bytes" ? Tokenizer::bytes() : Tokenizer::load(name);
}

class TextTask final : public Task {
 public:
  explicit TextTask(TaskSetting setting)
      : config_(std::move(setting.config)),
        options_(std::move(setting.options)),
        processes_(std::move(setting.processes)) {
    check_text_keys(config_);
    tokenizer_ = open_tokenizer(config_.tokenizer);
    data_.emplace(TokenData::open(config_.data, tokenizer_));
    if (!config_.val.empty()) val_.emplace(TokenData::open(config_.val, tokenizer_));
    start_ = starting_language_model(config_, std::move(setting.origin), tokenizer_ ? tokenizer_->size() : 0);
    for (const std::optional<TokenData>* const data : {&data_, &val_}) {
      if (*data) check_tokens(**data);
    }
    per_epoch_ = std::max<std::int64_t>(
        window_count(*data_, config_.ctx_len) / (std::int64_t{config_.batch} * processes_->world()), 1);
  }

  const ModelData& start() const override { return start_; }
  Json facts() const override {
    const auto of = [](const TokenData& data) {
      return Json{{"tokens", data.size()}, {"fingerprint", data.fingerprint()}};
    };
    Json facts = {{"data", of(*data_)}};
    if (val_) facts["val"] = of(*val_);
    return facts;
  }

  Shape input() const override { return {config_.batch, config_.ctx_len}; }
  std::int64_t samples_per_pass() const override { return std::int64_t{config_.batch} * config_.ctx_len; }
  std::string_view unit() const override { return "tokens"; }
  std::int64_t passes_per_epoch() const override { return per_epoch_; }
  void seek(std::int64_t pass) override { pass_ = pass; }

  TrainingBatch next() override {
    TokenWindows windows = draw_windows(*data_, config_.ctx_len, config_.batch, config_.seed, pass_++,
                                        std::int64_t{processes_->rank()} * config_.batch);
    return {.input = std::move(windows.tokens), .targets = std::move(windows.targets), .branches = {}};
  }

  bool judges() const override { return val_.has_value(); }
  Criterion criterion() const override { return {.name = "loss", .higher = false}; }
  void judge(const Model& model, Trainer& trainer, EvalReport& report) const override {
    std::optional<LanguageSession> session;
    if (!options_.cuda) session.emplace(model, SessionOptions{.threads = options_.threads});
    const auto logits = [&](const Tensor& tokens) {
      if (!session) return trainer.logits(tokens);
      const auto row = tokens.data<std::int64_t>();
      LanguageState state = session->start();
      return session->read_all(std::vector<std::int32_t>(row.begin(), row.end()), state);
    };
    TextScore score(tokenizer_);
    const std::int64_t windows = window_count(*val_, config_.ctx_len);
    const std::int64_t world = processes_->world();
    const std::int64_t rank = processes_->rank();
    for (std::int64_t i = windows * rank / world; i < windows * (rank + 1) / world; ++i) {
      const TokenWindows window = window_at(*val_, config_.ctx_len, i);
      score.add(logits(window.tokens).data<float>(), window.targets.data<std::int64_t>());
    }
    score.fill(report, *processes_);
  }

 private:
  void check_tokens(const TokenData& data) const {
    const int vocabulary = require_language(*start_.architecture).vocab_size();
    require<ConfigError>(data.largest() < vocabulary, data.name(), "has token {}, the model knows 0 … {}; {}",
                         data.largest(), vocabulary - 1,
                         config_.from.empty() ? fmt::format("set options.vocab_size={}", data.largest() + 1)
                                              : "give the tokenizer that the model was trained with");
    const std::int64_t known = tokenizer_ ? tokenizer_->size() : vocabulary;
    require<ConfigError>(data.largest() < known, data.name(),
                         "has token {}, the tokenizer knows 0 … {}; are the tokens its own, or the text UTF-8?",
                         data.largest(), known - 1);
    require<ConfigError>(data.size() > config_.ctx_len, data.name(),
                         "has {} tokens, which do not fill one window of {} and the one that follows; lower ctx_len",
                         data.size(), config_.ctx_len);
  }

  TrainConfig config_;
  RunOptions options_;
  std::shared_ptr<Processes> processes_;
  std::optional<Tokenizer> tokenizer_;
  std::optional<TokenData> data_, val_;
  ModelData start_;
  std::int64_t per_epoch_ = 1;
  std::int64_t pass_ = 0;
};

}  // namespace

std::unique_ptr<Task> make_text_task(TaskSetting setting) { return std::make_unique<TextTask>(std::move(setting)); }

}  // namespace weft
