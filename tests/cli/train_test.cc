// weft train, run as a user runs it.
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstdio>
#include <filesystem>
#include <thread>

#include "tests/cli/command.h"

namespace weft::testing {
namespace {

namespace fs = std::filesystem;

// Records of the CIFAR-10 binary format: class k has a bright square at a place of its own.
void write_pictures(const std::string& path, int count) {
  std::string bytes;
  for (int i = 0; i < count; ++i) {
    const int label = i % 10;
    const Image background = noise(32, 32, static_cast<unsigned>(i));
    bytes += static_cast<char>(label);
    for (std::size_t c = 0; c < 3; ++c) {
      for (std::size_t y = 0; y < 32; ++y) {
        for (std::size_t x = 0; x < 32; ++x) {
          const bool square =
              y / 8 == static_cast<std::size_t>(label / 4) && x / 8 == static_cast<std::size_t>(label % 4);
          bytes += static_cast<char>(square ? 255 : background.pixels[3 * (32 * y + x) + c] / 4);
        }
      }
    }
  }
  write_text(path, bytes);
}

// The command in a process of its own that is not waited for; its files may grow to `largest` bytes.
pid_t start(std::vector<std::string> arguments, rlim_t largest = RLIM_INFINITY) {
  std::vector<char*> pointers = {const_cast<char*>(WEFT_COMMAND)};
  for (std::string& argument : arguments) pointers.push_back(argument.data());
  pointers.push_back(nullptr);
  const pid_t child = fork();
  if (child != 0) return child;
  const rlimit limit{.rlim_cur = largest, .rlim_max = largest};
  std::signal(SIGXFSZ, SIG_IGN);  // a write fails instead
  if (setrlimit(RLIMIT_FSIZE, &limit) != 0 || std::freopen("/dev/null", "w", stderr) == nullptr ||
      std::freopen("/dev/null", "w", stdout) == nullptr) {
    _exit(9);
  }
  execv(WEFT_COMMAND, pointers.data());
  _exit(9);
}

class Train : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!WEFT_HAS_TORCH) GTEST_SKIP() << "this build has no libtorch";
    write_pictures(folder_ / "train.bin", 120);
    write_pictures(folder_ / "val.bin", 40);
  }
  // 30 steps of a small model.
  std::vector<std::string> command(const std::string& out, std::vector<std::string> more = {}) const {
    std::vector<std::string> all = {"train",
                                    "--data",
                                    folder_ / "train.bin",
                                    "--val",
                                    folder_ / "val.bin",
                                    "--out",
                                    folder_ / out,
                                    "--epochs",
                                    "10",
                                    "--batch",
                                    "40",
                                    "--threads",
                                    "1",
                                    "--lr",
                                    "0.004",
                                    "--set",
                                    "options.embed_dims=16",
                                    "--set",
                                    "options.depth=2",
                                    "--set",
                                    "options.patch_size=8",
                                    "--set",
                                    "drop_path=0.1",
                                    "--set",
                                    "log_every=1",
                                    "--set",
                                    "state_every=5"};
    all.insert(all.end(), more.begin(), more.end());
    return all;
  }
  std::string file(const std::string& run, const char* name) const { return (fs::path(folder_ / run) / name).string(); }
  // The log without what depends on time.
  std::vector<Json> log(const std::string& run) const {
    std::vector<Json> lines = json_lines(read_text(file(run, "log.jsonl")));
    for (Json& line : lines) line.erase("pictures_per_second");
    return lines;
  }

  ScratchFolder folder_;
};

TEST_F(Train, LearnsWhatItIsShownAndGivesAModelForAllCommands) {
  const Outcome trained = weft_command(command("run", {"--json", "--set", "epochs=60", "--set", "augment.cutmix=0",
                                                       "--set", "augment.crop=center", "--set", "augment.hflip=0"}));
  ASSERT_EQ(trained.code, 0) << trained.err;
  const Json result = only_json(trained.out);
  EXPECT_TRUE(result["finished"]);
  EXPECT_EQ(result["step"], 180);
  EXPECT_GT(result["best_top1"], 0.5);  // a tenth by chance
  const std::string best = file("run", "best.safetensors");
  const Json judged = only_json(weft_command({"eval", "--model", best, "--json", folder_ / "val.bin"}).out);
  EXPECT_EQ(judged["pictures"], 40);
  EXPECT_DOUBLE_EQ(judged["top1"], result["best_top1"]);
  write_picture(folder_ / "a.tif", noise(40, 40, 1));
  for (const char* const task : {"classify", "features"}) {
    const Outcome used = weft_command({task, "--model", best, folder_ / "a.tif"});
    EXPECT_EQ(used.code, 0) << used.err;
  }
  const Outcome inspected = weft_command({"inspect", best});
  EXPECT_EQ(inspected.code, 0) << inspected.err;
  EXPECT_NE(read_text(file("run", "curves.svg")).find("learning rate"), std::string::npos);
  double first = 0, last = 0;
  for (const Json& line : log("run")) {
    if (!line.contains("loss")) continue;
    if (first == 0) first = line["loss"];
    last = line["loss"];
  }
  EXPECT_LT(last, first - 0.3);
}

TEST_F(Train, AKilledRunGoesOnToTheSameBits) {
  ASSERT_EQ(weft_command(command("whole")).code, 0);
  // Killed at some step behind the tenth.
  const pid_t child = start(command("killed"));
  const auto lines = [&] {
    std::error_code error;
    const std::string path = file("killed", "log.jsonl");
    return fs::exists(path, error) ? lines_of(read_text(path)).size() : 0;
  };
  for (int i = 0; i < 6000 && lines() < 14; ++i) std::this_thread::sleep_for(std::chrono::milliseconds(10));
  kill(child, SIGKILL);
  waitpid(child, nullptr, 0);
  ASSERT_GE(lines(), 14U);
  const Outcome resumed = weft_command({"train", "--resume", folder_ / "killed", "--threads", "1"});
  ASSERT_EQ(resumed.code, 0) << resumed.err;
  for (const char* const name : {"state.safetensors", "last.safetensors", "best.safetensors", "config.json"}) {
    EXPECT_EQ(read_text(file("killed", name)), read_text(file("whole", name))) << name;
  }
  EXPECT_EQ(log("killed"), log("whole"));
}

TEST_F(Train, FineTunesOnFoldersOfOtherClassesAtAnotherSize) {
  small_model().save(folder_ / "start.safetensors");  // 7 classes, pictures of 32 × 32
  for (const char* const split : {"train", "val"}) {
    for (const char* const name : {"dark", "light"}) {
      const std::string folder = folder_ / fmt::format("pictures/{}/{}", split, name);
      fs::create_directories(folder);
      for (int i = 0; i < 8; ++i) {
        Image picture = noise(40, 50, static_cast<unsigned>(i));
        for (std::uint8_t& x : picture.pixels) x = static_cast<std::uint8_t>(x / 2 + (*name == 'd' ? 0 : 128));
        write_picture(fmt::format("{}/{}.tif", folder, i), picture);
      }
    }
  }
  const std::string pictures = folder_ / "pictures";
  const Outcome tuned = weft_command({"train",
                                      "--recipe",
                                      "finetune",
                                      "--from",
                                      folder_ / "start.safetensors",
                                      "--data",
                                      pictures,
                                      "--val",
                                      pictures,
                                      "--out",
                                      folder_ / "tuned",
                                      "--batch",
                                      "8",
                                      "--epochs",
                                      "6",
                                      "--lr",
                                      "0.01",
                                      "--threads",
                                      "1",
                                      "--set",
                                      "freeze=-1",
                                      "--set",
                                      "image_size=48",
                                      "--set",
                                      "recompute=true"});
  ASSERT_EQ(tuned.code, 0) << tuned.err;
  const Model model = Model::load(file("tuned", "last.safetensors"));
  EXPECT_EQ(model.labels(), (std::vector<std::string>{"dark", "light"}));
  EXPECT_EQ(model.preprocess().crop, 48);
  const Json judged =
      only_json(weft_command({"eval", "--model", file("tuned", "best.safetensors"), "--json", pictures + "/val"}).out);
  EXPECT_EQ(judged["top1"], 1.0);
  // The backbone is as it was, to the bit.
  const Model start = Model::load(folder_ / "start.safetensors");
  const auto bytes = [](const Model& of) {
    const Features features =
        Session(of, {.threads = 1}).features(Tensor::zeros({DType::kF32, {1, 3, 32, 32}}), std::vector{0});
    const auto values = features.maps[0].data<float>();
    return std::vector<float>(values.begin(), values.end());
  };
  EXPECT_EQ(bytes(model), bytes(start));
}

TEST_F(Train, StopsWhereItIsToldAndSaysHowToGoOn) {
  const Outcome stopped = weft_command(command("run", {"--stop-after", "7"}));
  EXPECT_EQ(stopped.code, 0) << stopped.err;
  EXPECT_NE(stopped.out.find("stopped after 7 of 30 steps"), std::string::npos) << stopped.out;
  expect_error(weft_command(command("run")), 1, "holds a training run already");
  expect_error(weft_command({"train", "--resume", folder_ / "run", "--lr", "1"}), 2, "own configuration");
}

TEST_F(Train, AConfigurationFileCountsBelowTheCommandLine) {
  write_text(folder_ / "c.json", R"({"lr": 0.5, "clip": 3, "augment": {"hflip": 0.25}})");
  const Outcome outcome = weft_command(
      {"train", "--config", folder_ / "c.json", "--lr", "0.25", "--set", "augment.mixup=0.5", "--print-config"});
  const Json config = only_json(outcome.out);
  EXPECT_EQ(config["lr"], 0.25);
  EXPECT_EQ(config["clip"], 3);
  EXPECT_EQ(config["augment"]["hflip"], 0.25);
  EXPECT_EQ(config["augment"]["mixup"], 0.5);
  EXPECT_EQ(config["augment"]["smoothing"], 0.1);  // of the recipe
}

TEST_F(Train, AModelOptionIsSetBesideTheOthers) {
  const Json options = only_json(weft_command({"train", "--set", "options.depth=3", "--print-config"}).out)["options"];
  EXPECT_EQ(options, (Json{{"patch_size", 4}, {"embed_dims", 128}, {"depth", 3}}));
  const Json none =
      only_json(weft_command({"train", "--set", "options={}", "--set", "options.depth=3", "--print-config"}).out);
  EXPECT_EQ(none["options"], (Json{{"depth", 3}}));
}

TEST_F(Train, ADiskThatIsFullLosesNothing) {
  ASSERT_EQ(weft_command(command("run", {"--stop-after", "5"})).code, 0);
  const std::string before = read_text(file("run", "state.safetensors"));
  // Files may not grow to the size of a state.
  const auto kilobytes = static_cast<rlim_t>(before.size() / 1024);
  const pid_t child = start({"train", "--resume", folder_ / "run", "--threads", "1"}, kilobytes * 1024 / 2);
  int status = 0;
  waitpid(child, &status, 0);
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 1);
  EXPECT_EQ(read_text(file("run", "state.safetensors")), before);
  EXPECT_TRUE(fs::exists(file("run", "last.safetensors")));  // small enough
  const Outcome resumed = weft_command({"train", "--resume", folder_ / "run", "--threads", "1"});
  EXPECT_EQ(resumed.code, 0) << resumed.err;
}

TEST(TrainUsage, EveryMistakeGetsOneLine) {
  expect_error(weft_command({"train"}), 2, "--out");
  expect_error(weft_command({"train", "--out", "a", "--resume", "b"}), 2, "--out");
  expect_error(weft_command({"train", "--out", "a", "--set", "clip"}), 2, "KEY=VALUE");
  expect_error(weft_command({"train", "--out", "a", "--set", "lrr=1"}), 1, "did you mean lr?");
  expect_error(weft_command({"train", "--out", "a", "--lr", "fast"}), 1, "lr: expected a number, got \"fast\"");
  expect_error(weft_command({"train", "--out", "a", "--recipe", "smal"}), 1, "did you mean small?");
  expect_error(weft_command({"train", "--out", "a", "--config", "nowhere.json"}), 1, "nowhere.json");
  expect_error(weft_command({"train", "--out", "a", "--data", "nowhere"}), 1, "nowhere");
  expect_error(weft_command({"train", "--out", "a"}), 1, "data must be");
  expect_error(weft_command({"train", "--resume", "nowhere"}), 1, "no saved state");
  expect_error(weft_command({"train", "--out", "a", "--device", "tpu"}), 2, "tpu");
}

TEST(TrainUsage, EveryKeyIsDocumented) {
  const std::string text = read_text(WEFT_SOURCE_DIR "/docs/training.md");
  const Json config = only_json(weft_command({"train", "--print-config"}).out);
  const auto documented = [&](const std::string& key) { return text.find("| `" + key + "` |") != std::string::npos; };
  for (const auto& item : config.items()) {
    EXPECT_TRUE(item.key() == "augment" || documented(item.key())) << item.key();
  }
  for (const auto& item : config["augment"].items()) {
    EXPECT_TRUE(documented("augment." + item.key())) << item.key();
  }
}

TEST(TrainUsage, WithoutLibtorchItSaysWhatToInstall) {
  if (WEFT_HAS_TORCH) GTEST_SKIP() << "this build has libtorch";
  const ScratchFolder folder;
  write_pictures(folder / "train.bin", 128);
  expect_error(weft_command({"train", "--data", folder / "train.bin", "--out", folder / "run"}), 1, "libtorch-dev");
}

class TrainText : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!WEFT_HAS_TORCH) GTEST_SKIP() << "this build has no libtorch";
    std::string text;
    for (int i = 0; i < 60; ++i) text += "the cat sat on the mat. ";
    write_text(folder_ / "train.txt", text);
    write_text(folder_ / "val.txt", text.substr(0, 200));
  }
  std::vector<std::string> command(const std::string& out, const std::vector<std::string>& more = {}) const {
    std::vector<std::string> all = {"train",
                                    "--recipe",
                                    "text",
                                    "--data",
                                    folder_ / "train.txt",
                                    "--val",
                                    folder_ / "val.txt",
                                    "--tokenizer",
                                    "bytes",
                                    "--out",
                                    folder_ / out,
                                    "--batch",
                                    "4",
                                    "--threads",
                                    "1",
                                    "--lr",
                                    "0.01",
                                    "--epochs",
                                    "4"};
    for (const char* const set : {"ctx_len=24", "warmup_epochs=0", "log_every=1",
                                  R"(options={"n_layer":1,"n_embd":16,"dim_att":16,"dim_ffn":32})"}) {
      all.insert(all.end(), {"--set", set});
    }
    all.insert(all.end(), more.begin(), more.end());
    return all;
  }
  std::string file(const std::string& run, const char* name) const { return (fs::path(folder_ / run) / name).string(); }

  ScratchFolder folder_;
};

TEST_F(TrainText, LearnsASentenceAndGoesOnToTheSameBits) {
  const Outcome trained = weft_command(command("run", {"--json"}));
  ASSERT_EQ(trained.code, 0) << trained.err;
  const Json result = only_json(trained.out);
  EXPECT_TRUE(result["finished"]);
  EXPECT_LT(result["best_loss"], 2);  // ln 256 = 5.5 before; the sentence has eleven letters, 2.2 by their frequency
  EXPECT_NE(trained.err.find("bits per byte"), std::string::npos) << trained.err;
  EXPECT_NE(read_text(file("run", "log.jsonl")).find("tokens_per_second"), std::string::npos);
  EXPECT_NE(read_text(file("run", "curves.svg")).find("bits per byte"), std::string::npos);

  ASSERT_EQ(weft_command(command("part", {"--stop-after", "13"})).code, 0);
  ASSERT_EQ(weft_command({"train", "--resume", folder_ / "part", "--threads", "1"}).code, 0);
  for (const char* const name : {"state.safetensors", "last.safetensors", "best.safetensors"}) {
    EXPECT_EQ(read_text(file("part", name)), read_text(file("run", name))) << name;
  }

  std::vector<std::string> tuning = {
      "train",           "--recipe",          "text",        "--from",  file("run", "best.safetensors"),
      "--data",          folder_ / "val.txt", "--tokenizer", "bytes",   "--out",
      folder_ / "tuned", "--threads",         "1",           "--batch", "2",
      "--set",           "ctx_len=50",        "--json"};
  const Outcome tuned = weft_command(tuning);
  ASSERT_EQ(tuned.code, 0) << tuned.err;
  EXPECT_EQ(only_json(tuned.out)["best_loss"], nullptr);
}

TEST_F(TrainText, SaysWhatIsForPictures) {
  const Outcome outcome = weft_command({"train", "--model", "rwkv4_169m", "--data", folder_ / "train.txt",
                                        "--tokenizer", "bytes", "--out", folder_ / "run"});
  expect_error(outcome, 1, "the model rwkv4_169m reads text: image_size, mean, std, augment must not be set");
}

}  // namespace
}  // namespace weft::testing
