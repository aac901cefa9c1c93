#include "models/rwkv4/rwkv4.h"

#include <gtest/gtest.h>

#include <filesystem>

#include "api/model_data.h"
#include "core/options.h"
#include "models/testing/config_error.h"
#include "models/testing/reference_cases.h"
#include "ops/testing/random.h"
#include "verify/verify.h"

namespace weft::rwkv4 {
namespace {

// As a sequence and token by token: the parameters, logits and states.
TEST(Rwkv4, EqualsTheOfficialCode) {
  for (const char* name : {"rwkv4-lm", "rwkv4-lm-bf16"}) {
    testing::expect_equals_official(name, 5);
    testing::expect_rounds_as_expected(name);
  }
}

// A trained model of another team, from the files beside the project.
TEST(Rwkv4, GivesTheLogitsAndTheTextOfATrainedModel) {
  const std::filesystem::path folder = std::filesystem::path(WEFT_TEST_DATA) / "golden/rwkv4-tiny-rwkvcpp";
  if (!std::filesystem::exists(folder)) GTEST_SKIP() << folder << " is not there";
  for (const Engine engine : {Engine::kReference, Engine::kCpu}) {
    const VerifyResult result = verify_case(folder, {.engine = engine, .threads = 2});
    EXPECT_EQ(result.checks.size(), 9U);  // the count of parameters, and the outputs, most of them in both modes
    for (const VerifyCheck& check : result.checks) EXPECT_TRUE(check.passed()) << check.name << ' ' << check.error;
  }
}

// Peng et al., Table 2, and the closed form of the official code.
TEST(Rwkv4, HasThePublishedParameters) {
  const std::pair<const char*, std::int64_t> published[] = {
      {"rwkv4_169m", 169342464}, {"rwkv4_430m", 430397440}, {"rwkv4_1b5", 1515106304},
      {"rwkv4_3b", 2984627200},  {"rwkv4_7b", 7392649216},  {"rwkv4_14b", 14148597760},
  };
  for (const auto& [name, parameters] : published) {
    const auto [family, preset] = find_preset(name);
    EXPECT_EQ(native_graph(*family->configure(preset->config))->parameter_count(), parameters) << name;
  }
}

Weights small_weights(const Config& config) {
  const auto architecture = find_family("rwkv4").configure(config_to_json(config));
  return initial_weights(*architecture, 1);
}

TensorIndex index_of(const Weights& weights) {
  TensorIndex index;
  for (const auto& [name, tensor] : weights) index.emplace(name, tensor.type());
  return index;
}

TEST(Rwkv4, IsRecognisedByItsTensors) {
  const Config config{.n_layer = 3, .n_embd = 10, .vocab_size = 17, .dim_att = 14, .dim_ffn = 25};
  const auto recognition = recognise(index_of(small_weights(config)), Json::object());
  ASSERT_TRUE(recognition);
  EXPECT_EQ(recognition->config, config_to_json(config));
  EXPECT_TRUE(recognition->renamed.empty());
  for (const Finding& finding : recognition->findings) EXPECT_FALSE(finding.assumed) << finding.option;
}

TEST(Rwkv4, IsRecognisedInHuggingFacesLayout) {
  const Config config{.n_layer = 2, .n_embd = 8, .vocab_size = 9, .dim_att = 8, .dim_ffn = 32};
  const Weights weights = small_weights(config);
  const std::map<std::string, std::string> theirs = {
      {"emb.weight", "rwkv.embeddings.weight"},
      {"blocks.0.ln0.bias", "rwkv.blocks.0.pre_ln.bias"},
      {"blocks.1.ln2.weight", "rwkv.blocks.1.ln2.weight"},
      {"blocks.1.att.time_mix_r", "rwkv.blocks.1.attention.time_mix_receptance"},
      {"blocks.1.att.time_decay", "rwkv.blocks.1.attention.time_decay"},
      {"blocks.0.att.time_decay", "rwkv.blocks.0.attention.time_decay"},
      {"blocks.0.ffn.time_mix_k", "rwkv.blocks.0.feed_forward.time_mix_key"},
      {"blocks.0.ffn.key.weight", "rwkv.blocks.0.feed_forward.key.weight"},
      {"ln_out.weight", "rwkv.ln_out.weight"},
      {"head.weight", "head.weight"},
  };
  TensorIndex index;
  for (const auto& [own, name] : theirs) index.emplace(name, weights.at(own).type());
  const auto recognition = recognise(index, Json::object());
  ASSERT_TRUE(recognition);
  EXPECT_EQ(recognition->config, config_to_json(config));
  for (const auto& [own, name] : theirs) {
    const auto found = recognition->renamed.find(name);
    EXPECT_EQ(found == recognition->renamed.end() ? name : found->second, own);
  }
}

TEST(Rwkv4, RefusesWhatIsOutOfRange) {
  const auto error = [](const Config& config) { return testing::config_error(config); };
  EXPECT_EQ(error({.n_layer = 0}), "[rwkv4] n_layer must be 1 … 1024, got 0");
  EXPECT_EQ(error({.vocab_size = -1, .dim_ffn = 0}),
            "[rwkv4] vocab_size must be 1 … 16777216, got -1; dim_ffn must be 1 … 1048576, got 0");
}

TEST(Rwkv4, ReadsNoPictures) {
  const auto architecture = find_family("rwkv4").configure(Json::object());
  try {
    build_graph(*architecture, {1, 3, 32, 32}, {});
    FAIL();
  } catch (const UnsupportedError& error) {
    EXPECT_STREQ(error.what(), "[rwkv4] reads text, not pictures; weft generate runs it");
  }
}

}  // namespace
}  // namespace weft::rwkv4
