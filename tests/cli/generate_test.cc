// weft generate, and what the other commands make of a model that reads text.
#include <algorithm>
#include <filesystem>

#include "api/testing/small_language_model.h"
#include "io/npy.h"
#include "io/safetensors.h"
#include "tests/cli/command.h"
#include "weft/language.h"

namespace weft::testing {
namespace {

using namespace std::string_literals;
using Arguments = std::vector<std::string>;

const std::string kLetters = (std::filesystem::path(WEFT_SOURCE_DIR) / "tests/golden/rwkv4-lm/weights.pth").string();

// A vocabulary of RWKV World: 0 ends texts, then the characters from '!' on.
void write_vocabulary(const std::string& path, int size) {
  std::string text;
  for (int i = 1; i < size; ++i) {
    const int code = 0x20 + i;
    text += fmt::format(
        "{} {} 1\n", i,
        code < 0x7F && code != '\'' && code != '\\' ? fmt::format("'{:c}'", code) : fmt::format("b'\\x{:02x}'", code));
  }
  write_text(path, text);
}

class GenerateCommand : public ::testing::Test {
 protected:
  GenerateCommand() {
    small_language_model({.vocab_size = 256}).save(model_);
    write_vocabulary(vocabulary_, 97);
  }

  Outcome run(Arguments more, const RunOptions& options = {}) const {
    more.insert(more.begin(), {"generate", "--model", model_, "--threads", "1"});
    return weft_command(std::move(more), options);
  }
  std::vector<int> tokens(Arguments more, const RunOptions& options = {}) const {
    more.emplace_back("--json");
    const Outcome outcome = run(std::move(more), options);
    EXPECT_EQ(outcome.code, 0) << outcome.err;
    return only_json(outcome.out).value("tokens", std::vector<int>());
  }

  const ScratchFolder folder_;
  const std::string model_ = folder_ / "bytes.safetensors";
  const std::string vocabulary_ = folder_ / "letters.txt";
};

TEST_F(GenerateCommand, IsTheSameEveryTime) {
  const std::vector<int> greedy = tokens({"Once", "--temperature", "0", "--tokens", "50"});
  EXPECT_EQ(greedy.size(), 50U);
  EXPECT_EQ(tokens({"Once", "--temperature", "0", "--tokens", "50", "--seed", "7"}), greedy);
  EXPECT_NE(tokens({"Twice", "--temperature", "0", "--tokens", "50"}), greedy);
  const std::vector<int> drawn = tokens({"Once", "--tokens", "50", "--seed", "7"});
  EXPECT_EQ(tokens({"Once", "--tokens", "50", "--seed", "7"}), drawn);
  EXPECT_NE(tokens({"Once", "--tokens", "50", "--seed", "8"}), drawn);
  EXPECT_EQ(tokens({"Once", "--tokens", "50", "--seed", "7", "--top-k", "1"}), greedy);
  EXPECT_EQ(tokens({"Once", "--tokens", "50", "--seed", "7", "--top-p", "0"}), greedy);
}

TEST_F(GenerateCommand, PrintsBytesAsTheyAreAndSpeedsBeside) {
  const Outcome outcome = run({"Once", "--temperature", "0", "--tokens", "50"});
  EXPECT_EQ(outcome.code, 0);
  std::string want;
  for (const int token : tokens({"Once", "--temperature", "0", "--tokens", "50"})) want += static_cast<char>(token);
  EXPECT_EQ(outcome.out, want + "\n");
  EXPECT_EQ(std::ranges::count(outcome.err, '\n'), 1) << outcome.err;
  EXPECT_TRUE(outcome.err.starts_with("weft: read 3 tokens in ")) << outcome.err;
  EXPECT_NE(outcome.err.find("generated 50 tokens in "), std::string::npos) << outcome.err;
}

TEST_F(GenerateCommand, TellsAllInJson) {
  const Outcome outcome = run({"Once", "--json", "--tokens", "9"});
  EXPECT_EQ(outcome.err, "");
  const Json json = only_json(outcome.out);
  std::vector<std::string> keys;
  for (const auto& [key, value] : json.items()) keys.push_back(key);
  EXPECT_EQ(keys,
            (std::vector<std::string>{"text", "tokens", "prompt_tokens", "finish", "prefill_seconds",
                                      "generate_seconds", "prefill_tokens_per_second", "generate_tokens_per_second",
                                      "bytes_per_token", "state_tokens", "dtype", "threads"}));
  EXPECT_EQ(json["tokens"].size(), 9U);
  EXPECT_EQ(json["prompt_tokens"], 4);
  EXPECT_EQ(json["finish"], "length");
  EXPECT_EQ(json["state_tokens"], 4 + 8);  // the last one is drawn and not read
  EXPECT_EQ(json["threads"], 1);
  EXPECT_EQ(json["dtype"], "f32");
  EXPECT_GT(json["generate_tokens_per_second"].get<double>(), 0);
  const std::string help = weft_command({"generate", "--help"}).out;
  for (const std::string& key : keys) EXPECT_NE(help.find('"' + key + '"'), std::string::npos) << key;
}

TEST_F(GenerateCommand, GoesOnFromASavedState) {
  const std::vector<Arguments> manners = {{"--temperature", "0"},
                                          {"--seed", "3"},
                                          {"--seed", "3", "--temperature", "0.7", "--top-p", "0.9", "--top-k", "40"},
                                          {"--seed", "5", "--repetition-penalty", "1.3", "--presence-penalty", "0.4",
                                           "--frequency-penalty", "0.2", "--penalty-decay", "0.98"}};
  for (const Arguments& manner : manners) {
    const auto with = [&](Arguments more) {
      more.insert(more.end(), manner.begin(), manner.end());
      return more;
    };
    const std::string state = folder_ / "a.state", end = folder_ / "end.state", other = folder_ / "other.state";
    const std::vector<int> whole = tokens(with({"Once upon", "--tokens", "30", "--state-out", end}));
    std::vector<int> parts = tokens(with({"Once upon", "--tokens", "10", "--state-out", state}));
    const std::vector<int> rest = tokens(with({"--tokens", "20", "--state-in", state, "--state-out", other}));
    parts.insert(parts.end(), rest.begin(), rest.end());
    EXPECT_EQ(parts, whole);
    EXPECT_EQ(read_text(end), read_text(other)) << "the states differ";

    // The prompt alone, then all of the text; and a prompt in two parts.
    EXPECT_EQ(tokens(with({"Once upon", "--tokens", "0", "--state-out", state})), std::vector<int>{});
    EXPECT_EQ(tokens(with({"--tokens", "30", "--state-in", state})), whole);
  }
  run({"Once ", "--tokens", "0", "--state-out", folder_ / "half.state"});
  EXPECT_EQ(tokens({"upon", "--tokens", "30", "--temperature", "0", "--state-in", folder_ / "half.state"}),
            tokens({"Once upon", "--tokens", "30", "--temperature", "0"}));
}

TEST_F(GenerateCommand, ReadsItsPromptFromAnywhere) {
  const std::string prompt = "Line one\nline two \xff\x00 and on"s;
  write_text(folder_ / "prompt", prompt);
  const std::vector<int> want = tokens({"--prompt-file", folder_ / "prompt", "--tokens", "12"});
  EXPECT_EQ(want.size(), 12U);
  EXPECT_EQ(tokens({"--prompt-file", "-", "--tokens", "12"}, {.input = prompt}), want);
  EXPECT_EQ(tokens({"Once", "--tokens", "12"}, {.input = "not read"}), tokens({"Once", "--tokens", "12"}));
  // Longer than what is read at once.
  std::string book;
  for (int i = 0; i < 3000; ++i) book += static_cast<char>('a' + i * i % 26);
  const Json json = only_json(run({"--prompt-file", "-", "--json", "--tokens", "1"}, {.input = book}).out);
  EXPECT_EQ(json["prompt_tokens"], 3000);
  EXPECT_EQ(json["state_tokens"], 3000);
}

TEST_F(GenerateCommand, EndsBeforeStopStrings) {
  const Json whole = only_json(run({"Once", "--json", "--temperature", "0", "--tokens", "40"}).out);
  std::string text;
  for (const Json& token : whole["tokens"]) text += static_cast<char>(token.get<int>());
  // The first letter that the text has not had before its eleventh, so that the stop string is found there.
  std::size_t at = 10;
  while (at < text.size() && (text[at] <= ' ' || text[at] > '~' || text.find(text[at]) < at)) ++at;
  ASSERT_LT(at, text.size()) << "the model's text has too few letters";
  const std::string stop(1, text[at]);
  const Outcome outcome =
      run({"Once", "--temperature", "0", "--tokens", "40", "--stop", "not in the text", "--stop", stop});
  EXPECT_EQ(outcome.out, text.substr(0, at) + "\n");
  const Json json = only_json(run({"Once", "--json", "--temperature", "0", "--tokens", "40", "--stop", stop}).out);
  EXPECT_EQ(json["finish"], "stop");
  EXPECT_EQ(json["tokens"].size(), at + 1);
}

TEST_F(GenerateCommand, KnowsTheVocabularyOfItsModel) {
  const Arguments letters = {"generate", "--model", kLetters, "--tokenizer", vocabulary_, "--json", "--tokens", "20"};
  const auto with = [&](Arguments more) {
    more.insert(more.begin(), letters.begin(), letters.end());
    return more;
  };
  const Json json = only_json(weft_command(with({"HELLO", "--ignore-end"})).out);
  EXPECT_EQ(json["prompt_tokens"], 5);
  std::string text;
  for (const Json& token : json["tokens"]) {
    EXPECT_LT(token.get<int>(), 97);
    if (token.get<int>() > 0) text += static_cast<char>(0x20 + token.get<int>());
  }
  EXPECT_EQ(json["tokens"].size(), 20U);
  EXPECT_EQ(text.substr(0, 4), json["text"].get<std::string>().substr(0, 4));
  // Without a prompt: behind the end of another text.
  EXPECT_EQ(only_json(weft_command(with({})).out)["prompt_tokens"], 0);
  expect_error(weft_command(with({"tab\t"})), 1, "the vocabulary has no token for the byte 0x09; is the text UTF-8?");

  expect_error(weft_command({"generate", "--model", kLetters, "ABC"}), 2,
               "--tokenizer is required: a file with the vocabulary of the model's 97 tokens");
  expect_error(weft_command({"generate", "--model", kLetters, "--tokenizer", "bytes", "ABC"}), 1,
               "this tokenizer has 256 tokens, the model knows 97");
  write_vocabulary(folder_ / "more.txt", 98);
  expect_error(weft_command({"generate", "--model", kLetters, "--tokenizer", folder_ / "more.txt", "ABC"}), 1,
               "this tokenizer has 98 tokens, the model knows 97");
}

TEST_F(GenerateCommand, WrongUsageIsOneLineAndTwo) {
  expect_error(weft_command({"generate", "text"}), 2, "--model");
  expect_error(run({}), 2, "nothing to go on from; give a prompt");
  expect_error(run({"--tokens", "0"}), 2, "nothing to go on from");
  expect_error(run({"a", "--prompt-file", vocabulary_}), 2, "--prompt-file");
  const std::pair<const char*, std::vector<const char*>> bad[] = {
      {"--tokens", {"-1", "x", "1e99", "1.5"}},
      {"--temperature", {"-0.1", "x", "nan", "inf"}},
      {"--top-p", {"-0.1", "1.1", "x", "nan"}},
      {"--top-k", {"-1", "x", "1.5"}},
      {"--repetition-penalty", {"0", "-1", "x", "inf"}},
      {"--presence-penalty", {"x", "nan"}},
      {"--frequency-penalty", {"x", "inf"}},
      {"--penalty-decay", {"-0.1", "1.1", "x"}},
      {"--seed", {"-1", "x", "1.5", "99999999999999999999"}},
      {"--stop", {""}},
      {"--threads", {"-1"}},
      {"--dtype", {"q4", "f16"}},
      {"--max-memory", {"much"}},
      {"--set", {"x"}}};
  for (const auto& [option, values] : bad) {
    std::string name = std::string(option).substr(2);
    for (const char* value : values) {
      SCOPED_TRACE(fmt::format("{} {}", option, value));
      std::ranges::replace(name, '-', '_');  // as the library calls it
      const Outcome outcome = run({"a", "--tokens", "1", fmt::format("{}={}", option, value)});
      EXPECT_TRUE(outcome.err.find(option) != std::string::npos || outcome.err.find(name) != std::string::npos)
          << outcome.err;
      expect_error(outcome, 2, "");
      EXPECT_EQ(outcome.out, "");
    }
  }
}

TEST_F(GenerateCommand, FailuresAreOneLineAndOne) {
  expect_error(weft_command({"generate", "--model", folder_ / "none.pth", "a"}), 1, "none.pth");
  expect_error(weft_command({"generate", "--model", write_small_model(folder_ / "p.safetensors"), "a"}), 1,
               "reads pictures, not text");
  expect_error(weft_command({"generate", "--model", "vrwkv_tiny", "a"}), 1, "reads pictures, not text");
  expect_error(run({"a", "--tokenizer", folder_ / "none.txt"}), 1, "none.txt");
  write_text(folder_ / "bad.txt", "no vocabulary\n");
  expect_error(run({"a", "--tokenizer", folder_ / "bad.txt"}), 1, "bad.txt");
  expect_error(run({"--prompt-file", folder_ / "none"}), 1, "none");
  expect_error(run({"--prompt-file", folder_.path().string()}), 1, "");
  expect_error(run({"a", "--state-in", folder_ / "none.state"}), 1, "none.state");
  expect_error(run({"a", "--state-in", model_}), 1, "is no saved state");
  expect_error(run({"a", "--max-memory", "1K"}), 1, "the limit is");
}

TEST_F(GenerateCommand, TheTextIsThereBeforeItsStateFailsToBe) {
  const std::string nowhere = folder_ / "no/such/folder.state";
  const Outcome outcome = run({"Once", "--json", "--tokens", "3", "--state-out", nowhere});
  expect_error(outcome, 1, "folder.state");
  EXPECT_EQ(only_json(outcome.out)["tokens"].size(), 3U);
}

TEST_F(GenerateCommand, RefusesStatesOfOthers) {
  const std::string own = folder_ / "own.state";
  run({"Once", "--tokens", "3", "--state-out", own});
  const std::string sibling = folder_ / "sibling.safetensors";
  small_language_model({.vocab_size = 256, .seed = 2}).save(sibling);
  expect_error(weft_command({"generate", "--model", sibling, "--state-in", own}), 1, "is a state of another model");

  const Model model = Model::load(model_);
  const LanguageSession session(model, {.threads = 1});
  session.save(folder_ / "bare.state", {session.start(), {}});
  expect_error(run({"--state-in", folder_ / "bare.state"}), 1, "was not saved by weft generate");

  const auto expect_damaged = [&](const std::string& key, const std::string& note) {
    SCOPED_TRACE(note);
    SafetensorsFile file = read_safetensors(map_file(own));
    ASSERT_TRUE(file.metadata.contains("note." + key));
    file.metadata["note." + key] = note;
    write_safetensors(folder_ / "bad.state", file.tensors, file.metadata);
    expect_error(run({"a", "--state-in", folder_ / "bad.state", "--presence-penalty", "1"}), 1, "");
  };
  for (const char* note : {"", "{", "3", "[]", "[1,2]", "[\"a\"]", "[-1]", "[256]", "{}", "[99999999999]"}) {
    expect_damaged("pending", note);
  }
  for (const char* note :
       {"", "[]", "{}", "{\"position\":0}", "{\"position\":\"x\",\"counts\":[]}", "{\"position\":0,\"counts\":[[1]]}",
        "{\"position\":0,\"counts\":[[2,1],[1,1]]}", "{\"position\":0,\"counts\":[[-1,1]]}",
        "{\"position\":0,\"counts\":[[1,-1]]}", "{\"position\":0,\"counts\":7}"}) {
    expect_damaged("sampler", note);
  }
  std::string bytes = read_text(own);
  write_text(folder_ / "short.state", bytes.substr(0, bytes.size() / 2));
  expect_error(run({"--state-in", folder_ / "short.state"}), 1, "short.state");
}

TEST_F(GenerateCommand, TellsWhenItsOutputIsLost) {
  if (!std::filesystem::exists("/dev/full")) GTEST_SKIP() << "this system has no /dev/full";
  const Outcome outcome = run({"Once", "--tokens", "3"}, {.output = "/dev/full"});
  EXPECT_EQ(outcome.code, 1);
  EXPECT_NE(outcome.err.find("standard output"), std::string::npos) << outcome.err;
}

TEST_F(GenerateCommand, InFewerBitsToo) {
  for (const std::string& dtype : dtype_names({DType::kBF16})) {
    const Json json = only_json(run({"Once", "--json", "--tokens", "5", "--dtype", dtype}).out);
    EXPECT_EQ(json["dtype"], dtype);
    EXPECT_EQ(json["tokens"].size(), 5U);
    EXPECT_LT(json["bytes_per_token"].get<int>(),
              only_json(run({"Once", "--json", "--tokens", "5"}).out)["bytes_per_token"].get<int>());
  }
}

// rwkv.cpp's own model of bytes, from the files beside the project: what its text goes on with is on record there.
TEST(Generate, GoesOnAsOnRecord) {
  const std::filesystem::path folder = std::filesystem::path(WEFT_TEST_DATA) / "golden/rwkv4-tiny-rwkvcpp";
  if (!std::filesystem::exists(folder)) GTEST_SKIP() << folder << " is not there";
  const Tensor recorded = read_npy(map_file(folder / "greedy.npy")).to(DType::kI32);
  const auto want = recorded.data<std::int32_t>();
  for (const char* threads : {"1", "2"}) {
    const Json json =
        only_json(weft_command({"generate", "--model", (folder / "weights.pth").string(), "--json", "--temperature",
                                "0", "--tokens", std::to_string(want.size()), "--threads", threads, "\"in"})
                      .out);
    EXPECT_EQ(json["tokens"].get<std::vector<std::int32_t>>(), (std::vector<std::int32_t>(want.begin(), want.end())));
  }
}

// ---- the other commands ----

class LanguageModelFile : public ::testing::Test {
 protected:
  LanguageModelFile() { small_language_model({.vocab_size = 256}).save(model_); }

  const ScratchFolder folder_;
  const std::string model_ = folder_ / "m.safetensors";
};

TEST_F(LanguageModelFile, IsDescribed) {
  const Json info = only_json(weft_command({"info", "--json", model_}).out);
  EXPECT_EQ(info["family"], "rwkv4");
  EXPECT_EQ(info["vocab_size"], 256);
  EXPECT_FALSE(info.contains("classes"));
  const Outcome text = weft_command({"info", model_});
  EXPECT_NE(text.out.find("vocabulary    256 tokens"), std::string::npos) << text.out;
  EXPECT_NE(text.out.find("a token"), std::string::npos) << text.out;
  expect_error(weft_command({"info", model_, "--size", "32"}), 2, "rwkv4 reads text");
  EXPECT_EQ(only_json(weft_command({"inspect", "--json", model_}).out)["family"], "rwkv4");
  EXPECT_EQ(only_json(weft_command({"inspect", "--json", kLetters}).out)["config"]["dim_ffn"], 160);
  bool listed = false;
  for (const Json& json : json_lines(weft_command({"models", "--json"}).out)) {
    if (json["name"] != "rwkv4_169m") continue;
    listed = true;
    EXPECT_EQ(json["family"], "rwkv4");
    EXPECT_EQ(json["parameters"], 169342464);
  }
  EXPECT_TRUE(listed);
}

TEST_F(LanguageModelFile, IsConverted) {
  const auto text = [](const std::string& model) {
    const Outcome outcome =
        weft_command({"generate", "--model", model, "--temperature", "0", "--tokens", "20", "Once"});
    EXPECT_EQ(outcome.code, 0) << outcome.err;
    return outcome.out;
  };
  const std::string copy = folder_ / "copy.safetensors", half = folder_ / "half.safetensors";
  const std::string wide = folder_ / "wide.safetensors";
  const Outcome converted = weft_command({"convert", model_, copy});
  EXPECT_NE(converted.out.find("vocabulary  256 tokens"), std::string::npos) << converted.out;
  EXPECT_EQ(converted.out.find("preprocess"), std::string::npos) << converted.out;
  EXPECT_EQ(text(copy), text(model_));
  const Json json = only_json(weft_command({"convert", "--json", "--dtype", "bf16", model_, half}).out);
  EXPECT_EQ(json["vocab_size"], 256);
  EXPECT_FALSE(json.contains("preprocess"));
  EXPECT_EQ(weft_command({"convert", "--dtype", "f32", half, wide}).code, 0);
  EXPECT_EQ(text(half), text(wide)) << "bf16 is widened exactly";
  EXPECT_LT(std::filesystem::file_size(half), 0.6 * static_cast<double>(std::filesystem::file_size(wide)));
  for (const char* option : {"--mean=1,2,3", "--resize=32", "--crop=8", "--filter=box"}) {
    expect_error(weft_command({"convert", model_, folder_ / "x.safetensors", option}), 2,
                 "is for models that read pictures; rwkv4 reads text");
  }
  EXPECT_FALSE(std::filesystem::exists(folder_ / "x.safetensors"));
}

TEST_F(LanguageModelFile, IsNotForPictures) {
  const std::string picture = folder_ / "a.tif";
  write_picture(picture, noise(32, 32, 1));
  const std::vector<Arguments> commands = {{"classify", "--model", model_, picture},
                                           {"features", "--model", model_, picture},
                                           {"compare", "--model", model_, picture},
                                           {"eval", "--model", model_, folder_.path().string()},
                                           {"connect", model_, picture},
                                           {"connect", "rwkv4_169m", picture},
                                           {"export", model_, folder_ / "x.onnx"},
                                           {"export", "rwkv4_169m", folder_ / "x.onnx"}};
  for (const Arguments& command : commands) {
    SCOPED_TRACE(command.front());
    const Outcome outcome = weft_command(command);
    expect_error(outcome, 1, "reads text, not pictures; weft generate runs it");
    EXPECT_EQ(outcome.out, "");
  }
}

TEST_F(LanguageModelFile, IsMeasuredBesideTheMemory) {
  const Outcome outcome =
      weft_command({"bench", model_, "--dtype", "f32", "--threads", "1,2", "--min-time", "0", "--json"});
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  const std::vector<Json> json = json_lines(outcome.out);
  ASSERT_EQ(json.size(), 2U);
  for (const Json& line : json) {
    EXPECT_GT(line.at("prefill_tokens_per_second"), 0);
    EXPECT_GT(line.at("machine_bytes_per_second"), 1e8);
    EXPECT_GE(line.at("turns"), 5);
    const double share = line.at("bytes_per_token").get<double>() *
                         line.at("generate_tokens_per_second").get<double>() /
                         line.at("machine_bytes_per_second").get<double>();
    EXPECT_GT(line.at("share").get<double>(), share / 3) << "a median of ratios, not the ratio of the medians";
    EXPECT_LT(line.at("share").get<double>(), share * 3);
  }
  expect_error(weft_command({"bench", model_, "vrwkv_tiny"}), 2, "are measured apart");
  expect_error(weft_command({"bench", model_, "--size", "224"}), 2, "of language models --threads");
}

}  // namespace
}  // namespace weft::testing
