// Training in several processes, through the command.
#include <chrono>
#include <cmath>
#include <csignal>
#include <filesystem>
#include <memory>
#include <thread>

#include "data/testing/pictures.h"
#include "tests/cli/command.h"
#include "torch/testing/free_port.h"

namespace weft::testing {
namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;

std::vector<Json> log_of(const std::string& run) { return json_lines(read_text(fs::path(run) / "log.jsonl")); }

// Values of one key in all lines that have it.
std::vector<double> column(const std::vector<Json>& lines, const char* key) {
  std::vector<double> values;
  for (const Json& line : lines) {
    if (line.contains(key)) values.push_back(line[key].get<double>());
  }
  return values;
}

class ProcessesTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!WEFT_HAS_TORCH) GTEST_SKIP() << "this build has no libtorch";
    write_records("train.bin", 272);
    write_records("val.bin", 21);
  }

  void write_records(const char* name, int count) const {
    std::string bytes;
    for (int i = 0; i < count; ++i) bytes += cifar_record(noise_picture(32, 32, 100 + i), i % 10);
    write_text(folder_ / name, bytes);
  }

  // A model of 2 layers and 16 channels on 16 tokens: 2 steps an epoch when 128 pictures are a step.
  std::vector<std::string> new_run(const char* out, int batch, int epochs = 3) const {
    return {"train",
            "--data",
            folder_ / "train.bin",
            "--val",
            folder_ / "val.bin",
            "--out",
            folder_ / out,
            "--batch",
            std::to_string(batch),
            "--epochs",
            std::to_string(epochs),
            "--set",
            "log_every=1",
            "--set",
            "options.patch_size=8",
            "--set",
            "options.embed_dims=16",
            "--set",
            "options.depth=2",
            "--set",
            "drop_path=0.2",
            "--threads",
            "1"};
  }

  struct Pair {
    std::unique_ptr<RunningCommand> first, second;
  };
  // Rank 0 and rank 1, as torchrun would start them.
  Pair start(const std::vector<std::string>& arguments, const std::vector<std::string>& of_second,
             const char* timeout = "20") const {
    const std::string port = std::to_string(free_port());
    const auto one = [&](const char* rank, std::vector<std::string> own) {
      own.insert(own.end(), {"--timeout", timeout});
      return std::make_unique<RunningCommand>(own, RunOptions{.environment = {{"RANK", rank},
                                                                              {"WORLD_SIZE", "2"},
                                                                              {"LOCAL_RANK", rank},
                                                                              {"LOCAL_WORLD_SIZE", "2"},
                                                                              {"MASTER_ADDR", "127.0.0.1"},
                                                                              {"MASTER_PORT", port}}});
    };
    return {.first = one("0", arguments), .second = one("1", of_second)};
  }
  Pair start(const std::vector<std::string>& arguments) const { return start(arguments, arguments); }

  void expect_success(Pair pair, int code = 0) const {
    const Outcome first = pair.first->wait();
    const Outcome second = pair.second->wait();
    EXPECT_EQ(first.code, code) << first.err;
    EXPECT_EQ(second.code, code) << second.err;
    EXPECT_EQ(second.out + second.err, "");  // rank 0 speaks for all
  }

  // Until the run has written so many lines of its log.
  void wait_for_steps(const char* run, std::size_t lines) const {
    const std::string log = folder_ / run + "/log.jsonl";
    const auto end = Clock::now() + std::chrono::seconds(120);
    while (Clock::now() < end && (!fs::exists(log) || lines_of(read_text(log)).size() < lines)) {
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
    }
  }

  ScratchFolder folder_;
};

TEST_F(ProcessesTest, TwoWithHalfTheBatchAreAsOne) {
  // AdamW divides by the size of the gradient, however small, and so makes much of its last bits: an eps far above that
  // keeps the steps smooth.
  const auto smooth = [](std::vector<std::string> arguments) {
    arguments.insert(arguments.end(), {"--set", "eps=0.1"});
    return arguments;
  };
  const Outcome one = weft_command(smooth(new_run("one", 128)));
  ASSERT_EQ(one.code, 0) << one.err;
  expect_success(start(smooth(new_run("two", 64))));
  const std::vector<Json> alone = log_of(folder_ / "one"), both = log_of(folder_ / "two");
  const std::vector<double> loss = column(alone, "loss");
  ASSERT_EQ(loss.size(), 6U);
  ASSERT_EQ(column(both, "loss").size(), 6U);
  for (const char* const key : {"loss", "lr", "gradient_norm", "val_loss"}) {
    const std::vector<double> a = column(alone, key), b = column(both, key);
    ASSERT_EQ(a.size(), b.size());
    // A sum of 128 terms in f32, in another order: each of 127 additions rounds to 2^-24 of a sum that is at most the
    // whole. What the weights take over from the gradients' rounding is far below.
    for (std::size_t i = 0; i < a.size(); ++i) EXPECT_NEAR(a[i], b[i], 127 * std::ldexp(a[i], -24)) << key << ' ' << i;
  }
  EXPECT_EQ(column(alone, "val_top1"), column(both, "val_top1"));
}

TEST_F(ProcessesTest, ResumedIsAsIfNeverInterrupted) {
  expect_success(start(new_run("whole", 64)));
  std::vector<std::string> part = new_run("part", 64);
  part.insert(part.end(), {"--stop-after", "3"});
  expect_success(start(part));
  const std::vector<std::string> again = {"train", "--resume", folder_ / "part", "--threads", "1"};
  // Another order of the pictures.
  expect_error(weft_command(again), 1, "the run has 2 processes of batch 64; with 1 process of batch 64");
  expect_success(start(again));
  const auto file = [&](const char* run) { return read_text(fs::path(folder_ / run) / "state.safetensors"); };
  EXPECT_TRUE(file("whole") == file("part"));  // as long as it is
  // The same order in one process.
  EXPECT_EQ(weft_command({"train", "--resume", folder_ / "part", "--batch", "128", "--threads", "1"}).code, 0);
}

TEST_F(ProcessesTest, ASignalToOneStopsAllWithTheStateSaved) {
  Pair pair = start(new_run("run", 64, 1000));
  wait_for_steps("run", 3);
  pair.second->signal(SIGTERM);
  const Outcome first = pair.first->wait(), second = pair.second->wait();
  EXPECT_EQ(first.code, 1) << first.err;
  EXPECT_EQ(second.code, 1) << second.err;
  EXPECT_NE(first.out.find("stopped after"), std::string::npos) << first.out << first.err;
  EXPECT_TRUE(fs::exists(folder_ / "run" + "/state.safetensors"));
}

TEST_F(ProcessesTest, TheLossOfOneEndsTheOther) {
  const auto last_line = [](const Outcome& outcome) {
    const std::vector<std::string> lines = lines_of(outcome.err);
    return lines.empty() ? std::string() : lines.back();
  };
  for (const int victim : {0, 1}) {
    const std::string run = fmt::format("run{}", victim);
    Pair pair = start(new_run(run.c_str(), 64, 1000));
    wait_for_steps(run.c_str(), 3);
    RunningCommand& lost = victim == 0 ? *pair.first : *pair.second;
    RunningCommand& other = victim == 0 ? *pair.second : *pair.first;
    lost.signal(SIGKILL);
    const auto start = Clock::now();
    const Outcome outcome = other.wait();
    EXPECT_LT(Clock::now() - start, std::chrono::seconds(30));
    EXPECT_EQ(outcome.code, 1) << outcome.err;
    EXPECT_TRUE(last_line(outcome).starts_with(fmt::format("weft: [processes] rank {} of 2 waited for", 1 - victim)))
        << outcome.err;
    EXPECT_NE(outcome.err.find("a process was probably lost"), std::string::npos);
    if (victim == 0) {
      EXPECT_EQ(lines_of(outcome.err).size(), 1U) << outcome.err;
    }
  }
}

TEST_F(ProcessesTest, OneThatHangsEndsTheOther) {
  Pair pair = start(new_run("run", 64, 1000), new_run("run", 64, 1000), "1");
  wait_for_steps("run", 3);
  pair.second->signal(SIGSTOP);
  const auto start = Clock::now();
  const Outcome outcome = pair.first->wait();
  EXPECT_LT(Clock::now() - start, std::chrono::seconds(30));  // 1 s within a step, 10 s elsewhere
  EXPECT_EQ(outcome.code, 1) << outcome.err;
  EXPECT_NE(outcome.err.find("rank 0 of 2 waited for"), std::string::npos) << outcome.err;
}

TEST_F(ProcessesTest, AllMustMeanTheSameRun) {
  std::vector<std::string> other = new_run("run", 64);
  other.insert(other.end(), {"--lr", "0.5"});
  Pair pair = start(new_run("run", 64), other);
  for (RunningCommand* const command : {pair.first.get(), pair.second.get()}) {
    expect_error(command->wait(), 1, "configuration/lr is 0.5 at rank 1, 0.002 at rank 0");
  }
  EXPECT_FALSE(fs::exists(folder_ / "run"));
}

TEST_F(ProcessesTest, TheDataMustBeTheSame) {
  write_records("more.bin", 280);
  std::vector<std::string> other = new_run("run", 64);
  other[2] = folder_ / "more.bin";
  Pair pair = start(new_run("run", 64), other);
  for (RunningCommand* const command : {pair.first.get(), pair.second.get()}) {
    expect_error(command->wait(), 1, "data/pictures is 280 at rank 1, 272 at rank 0");
  }
}

TEST_F(ProcessesTest, AHalfSetEnvironmentIsRefused) {
  expect_error(weft_command(new_run("run", 64), {.environment = {{"RANK", "0"}}}), 1, "WORLD_SIZE is not");
}

}  // namespace
}  // namespace weft::testing
