#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <limits>
#include <random>
#include <thread>

#include "api/testing/small_language_model.h"
#include "core/process_memory.h"
#include "io/safetensors.h"
#include "io/testing/files.h"
#include "kernel/testing/product_types.h"
#include "ops/testing/op_test.h"
#include "tests/allocations.h"
#include "verify/rounding.h"
#include "weft/weft.h"

namespace weft {
namespace {

using testing::refuses;
using testing::relative_error;
using testing::small_language_model;
using Tokens = std::vector<std::int32_t>;

// What the modes of a model must agree to in f32, over any length.
constexpr double kTolerance = 1e-5;

Tokens random_tokens(std::size_t count, int vocabulary = 97, unsigned seed = 7) {
  std::mt19937 random(seed);
  Tokens tokens(count);
  for (std::int32_t& token : tokens) token = static_cast<std::int32_t>(random() % static_cast<unsigned>(vocabulary));
  return tokens;
}

bool same_bits(const Tensor& a, const Tensor& b) {
  return a.type() == b.type() && std::equal(a.raw(), a.raw() + a.bytes(), b.raw());
}

bool same_state(const LanguageState& a, const LanguageState& b) {
  return a.tokens == b.tokens && std::ranges::equal(a.parts, b.parts, [](const auto& x, const auto& y) {
           return x.first == y.first && same_bits(x.second, y.second);
         });
}

void expect_near(const LanguageState& got, const LanguageState& want, double tolerance) {
  EXPECT_EQ(got.tokens, want.tokens);
  ASSERT_EQ(got.parts.size(), want.parts.size());
  for (const auto& [name, part] : want.parts) {
    EXPECT_LE(relative_error(got.parts.at(name), part), tolerance) << name;
  }
}

// The logits behind each token, read in pieces that end at `cuts` and at the end.
Tensor read_in_pieces(const LanguageSession& session, const Tokens& tokens, std::vector<std::size_t> cuts,
                      LanguageState& state) {
  const auto vocabulary = static_cast<std::size_t>(session.model().vocab_size());
  Tensor all(DType::kF32, {std::ssize(tokens), session.model().vocab_size()});
  cuts.push_back(tokens.size());
  std::size_t done = 0;
  for (const std::size_t cut : cuts) {
    const Tensor piece = session.read_all(std::span(tokens).subspan(done, cut - done), state);
    EXPECT_EQ(piece.shape(), (Shape{static_cast<std::int64_t>(cut - done), session.model().vocab_size()}));
    std::ranges::copy(piece.data<float>(), all.mutable_data<float>().subspan(done * vocabulary).begin());
    done = cut;
  }
  return all;
}

Tensor read_one_by_one(const LanguageSession& session, const Tokens& tokens, LanguageState& state) {
  std::vector<std::size_t> cuts;
  for (std::size_t i = 1; i < tokens.size(); ++i) cuts.push_back(i);
  return read_in_pieces(session, tokens, cuts, state);
}

TEST(LanguageSession, ReadsASequenceAsItReadsTokens) {
  const LanguageSession session(small_language_model(), {.threads = 2});
  const Tokens tokens = random_tokens(1025);
  LanguageState one_by_one = session.start();
  const Tensor want = read_one_by_one(session, tokens, one_by_one);
  EXPECT_EQ(one_by_one.tokens, 1025);

  LanguageState at_once = session.start();
  EXPECT_LE(relative_error(read_in_pieces(session, tokens, {}, at_once), want), kTolerance);
  expect_near(at_once, one_by_one, kTolerance);

  std::mt19937 random(3);
  for (int trial = 0; trial < 5; ++trial) {
    std::vector<std::size_t> cuts;
    for (std::size_t at = 1 + random() % 400; at < tokens.size(); at += 1 + random() % 400) cuts.push_back(at);
    LanguageState state = session.start();
    EXPECT_LE(relative_error(read_in_pieces(session, tokens, cuts, state), want), kTolerance);
    expect_near(state, one_by_one, kTolerance);
  }
}

TEST(LanguageSession, TheLastLogitsAreThoseOfAll) {
  const LanguageSession session(small_language_model(), {.threads = 2});
  for (const std::size_t count : {1, 2, 3, 100, 256, 300, 511}) {
    const Tokens tokens = random_tokens(count);
    LanguageState a = session.start(), b = session.start();
    const Tensor last = session.read(tokens, a);
    const Tensor all = session.read_all(tokens, b);
    EXPECT_EQ(last.shape(), (Shape{97}));
    const Tensor row = Tensor::of(all.data<float>().last(97), {97});
    EXPECT_LE(relative_error(last, row), kTolerance) << count;
    expect_near(a, b, kTolerance);
  }
}

TEST(LanguageSession, InFewerBitsIsNearF32) {
  if (testing::fewer_bits().empty()) GTEST_SKIP() << testing::kNoFewerBits;
  const Model model = small_language_model({.vocab_size = 1030, .n_embd = 128, .dim_ffn = 1024});
  const Tokens tokens = random_tokens(65, 1030);
  const auto graph = build_language_graph(require_language(*model.data().architecture), 1, 65, LogitsOf::kAll);
  const LanguageSession exact(model, {.threads = 1});
  LanguageState state = exact.start();
  const Tensor want = exact.read_all(tokens, state);
  for (const DType dtype : testing::fewer_bits()) {
    for (const int threads : {1, 2}) {
      SCOPED_TRACE(fmt::format("{} {} threads", name_of(dtype), threads));
      const LanguageSession session(model, {.threads = threads, .dtype = dtype});
      EXPECT_EQ(session.dtype(), dtype);
      LanguageState a = session.start(), b = session.start();
      const Tensor at_once = session.read_all(tokens, a);
      const Tensor one_by_one = read_one_by_one(session, tokens, b);
      for (const Tensor& got : {at_once, one_by_one}) {
        EXPECT_LE(relative_error(got, want), rounding_tolerance(*graph, dtype));
        EXPECT_GT(relative_error(got, want), kTolerance) << "was not used";
      }
      LanguageState again = session.start();
      EXPECT_TRUE(same_bits(session.read_all(tokens, again), at_once));
      EXPECT_TRUE(same_state(again, a));
    }
  }
}

// Weights so many that columns of few rows are shared out.
TEST(LanguageSession, AnyNumberOfThreadsGivesTheSame) {
  const Model model = small_language_model({.vocab_size = 1030, .n_embd = 128, .dim_ffn = 1024});
  const Tokens tokens = random_tokens(41, 1030);
  for (const DType dtype : testing::product_types()) {
    const LanguageSession single(model, {.threads = 1, .dtype = dtype});
    const auto graph = build_language_graph(require_language(*model.data().architecture), 1, 41, LogitsOf::kAll);
    // In f32 sums may be taken in another order. In fewer bits each of the two is as far from f32 as it may be.
    const double tolerance = dtype == DType::kF32 ? kTolerance : 2 * rounding_tolerance(*graph, dtype);
    LanguageState state = single.start();
    const Tensor want = read_one_by_one(single, tokens, state);
    for (const int threads : {2, 3}) {
      const LanguageSession session(model, {.threads = threads, .dtype = dtype});
      EXPECT_EQ(session.threads(), threads);
      LanguageState own = session.start();
      EXPECT_LE(relative_error(read_one_by_one(session, tokens, own), want), tolerance) << name_of(dtype);
      LanguageState few = session.start();
      EXPECT_LE(relative_error(read_in_pieces(session, tokens, {3, 19, 26}, few), want), tolerance) << name_of(dtype);
    }
  }
}

TEST(LanguageSession, ForksGoTheirOwnWays) {
  const LanguageSession session(small_language_model(), {.threads = 1});
  const Tokens beginning = random_tokens(20), left = random_tokens(30, 97, 1), right = random_tokens(30, 97, 2);
  LanguageState trunk = session.start();
  session.read(beginning, trunk);
  const LanguageState before = trunk;
  LanguageState a = trunk, b = trunk;
  for (std::size_t i = 0; i < 30; ++i) {  // turn by turn
    session.read({&left[i], 1}, a);
    session.read({&right[i], 1}, b);
  }
  EXPECT_TRUE(same_state(trunk, before));
  EXPECT_FALSE(same_state(a, b));
  for (const auto& [fork, tokens] : {std::pair(a, left), std::pair(b, right)}) {
    LanguageState alone = session.start();
    session.read(beginning, alone);
    for (const std::int32_t& token : tokens) session.read({&token, 1}, alone);
    EXPECT_TRUE(same_state(alone, fork));
  }
}

TEST(LanguageSession, WhoWritesIntoAStateChangesNoOther) {
  const LanguageSession session(small_language_model(), {.threads = 1});
  LanguageState mine = session.start();
  for (auto& [name, part] : mine.parts) std::ranges::fill(part.mutable_data<float>(), 3.0F);
  const LanguageState fresh = session.start();
  EXPECT_EQ(fresh.tokens, 0);
  for (const auto& [name, part] : fresh.parts) {
    for (const float x : part.data<float>()) ASSERT_TRUE(x == 0 || x == -1e30F) << name;
  }
}

TEST(LanguageSession, SavedStatesGoOnToTheBit) {
  const testing::TemporaryDirectory folder;
  const Model model = small_language_model();
  const LanguageSession session(model, {.threads = 2});
  LanguageState state = session.start();
  session.read(random_tokens(77), state);
  session.save(folder / "a.state", {.state = state, .notes = {{"who", "me"}, {"é", ""}}});
  const LanguageSession other(model, {.threads = 2});
  SavedState saved = other.load(folder / "a.state");
  EXPECT_TRUE(same_state(saved.state, state));
  EXPECT_EQ(saved.notes, (std::map<std::string, std::string>{{"who", "me"}, {"é", ""}}));
  const Tokens more = random_tokens(33, 97, 8);
  EXPECT_TRUE(same_bits(other.read(more, saved.state), session.read(more, state)));
  EXPECT_TRUE(same_state(saved.state, state));

  session.save(folder / "empty.state", {.state = session.start(), .notes = {}});
  EXPECT_TRUE(same_state(session.load(folder / "empty.state").state, session.start()));
}

TEST(LanguageSession, RefusesStatesThatAreNotTheModels) {
  const testing::TemporaryDirectory folder;
  const LanguageSession session(small_language_model(), {.threads = 1});
  const Tokens token = {5};
  LanguageState foreign = LanguageSession(small_language_model({.n_embd = 48}), {.threads = 1}).start();
  const LanguageState before = foreign;
  EXPECT_TRUE(refuses([&] { session.read(token, foreign); }, "the state is of another model"));
  EXPECT_TRUE(same_state(foreign, before));
  EXPECT_TRUE(refuses([&] { session.save(folder / "x", {foreign, {}}); }, "the state is of another model"));
  EXPECT_FALSE(std::filesystem::exists(folder / "x"));
  LanguageState nothing;
  EXPECT_TRUE(refuses([&] { session.read(token, nothing); }, "start() makes one"));
  LanguageState partial = session.start();
  partial.parts.erase("blocks.1.att.wkv");
  EXPECT_THROW(session.read(token, partial), ShapeError);
  LanguageState more = session.start();
  more.parts.emplace("blocks.2.att.wkv", more.parts.at("blocks.1.att.wkv"));
  EXPECT_THROW(session.read(token, more), ShapeError);
  LanguageState wide = session.start();
  wide.parts.at("blocks.0.ffn.x") = wide.parts.at("blocks.0.ffn.x").to(DType::kF64);
  EXPECT_THROW(session.read(token, wide), ShapeError);

  // The same shapes, other weights.
  session.save(folder / "a.state", {session.start(), {}});
  const LanguageSession sibling(small_language_model({.seed = 2}), {.threads = 1});
  EXPECT_TRUE(refuses([&] { sibling.load(folder / "a.state"); }, "is a state of another model"));
  EXPECT_THROW(sibling.load(folder / "a.state"), ConfigError);
}

TEST(LanguageSession, RefusesTokensThatTheModelDoesNotKnow) {
  const LanguageSession session(small_language_model(), {.threads = 1});
  LanguageState state = session.start();
  session.read(random_tokens(9), state);
  const LanguageState before = state;
  for (const Tokens& tokens : {Tokens{-1}, Tokens{97}, Tokens{1, 2, 97}, Tokens{std::numeric_limits<int>::min()}}) {
    EXPECT_TRUE(
        refuses([&] { session.read(tokens, state); },
                fmt::format("the model knows tokens 0 … 96, got {}; is the tokenizer the model's?", tokens.back())));
    EXPECT_THROW(session.read_all(tokens, state), ShapeError);
  }
  Tokens long_one = random_tokens(600);
  long_one.back() = 97;
  EXPECT_THROW(session.read(long_one, state), ShapeError);
  EXPECT_TRUE(refuses([&] { session.read({}, state); }, "at least one token"));
  EXPECT_THROW(session.read_all({}, state), ShapeError);
  EXPECT_TRUE(same_state(state, before));
}

class DamagedState : public ::testing::Test {
 protected:
  DamagedState() {
    LanguageState state = session_.start();
    session_.read(random_tokens(5), state);
    session_.save(sound_, {state, {{"note", "n"}}});
    file_ = read_safetensors(map_file(sound_));
  }

  void expect_refused(std::string_view text) {
    write_safetensors(folder_ / "b.state", file_.tensors, file_.metadata);
    EXPECT_TRUE(refuses([&] { (void)session_.load(folder_ / "b.state"); }, text));
    file_ = read_safetensors(map_file(sound_));
  }

  const testing::TemporaryDirectory folder_;
  const std::filesystem::path sound_ = folder_ / "a.state";
  const LanguageSession session_{small_language_model(), {.threads = 1}};
  SafetensorsFile file_;
};

TEST_F(DamagedState, IsToldByItsFile) {
  const auto load = [&](std::string_view name) { return [this, name] { (void)session_.load(folder_ / name); }; };
  EXPECT_TRUE(refuses(load("none.state"), "No such file"));
  const std::string bytes = testing::read_text(sound_);
  for (const std::size_t size : {std::size_t{0}, std::size_t{7}, std::size_t{200}, bytes.size() - 1}) {
    testing::write_text(folder_ / "short", bytes.substr(0, size));
    EXPECT_TRUE(refuses(load("short"), "short")) << size;
    EXPECT_THROW(load("short")(), IoError);
  }
  testing::write_text(folder_ / "text", "Once upon a time");
  EXPECT_TRUE(refuses(load("text"), "is no saved state"));
  session_.model().save(folder_ / "model.safetensors");
  EXPECT_TRUE(refuses(load("model.safetensors"), "is no saved state"));
}

TEST_F(DamagedState, IsToldByItsMetadata) {
  file_.metadata["weft.state"] = "2";
  expect_refused("is a state of format 2, this version reads 1");
  file_.metadata.erase("weft.state.tokens");
  expect_refused("weft.state.tokens");
  file_.metadata["weft.state.model"] = "rwkv4 0";
  expect_refused("is a state of another model (rwkv4 0, this one is rwkv4 ");
  for (const char* count : {"-1", "1.5", "[]", "", "many", "18446744073709551615", "9223372036854775807", "1e400"}) {
    file_.metadata["weft.state.tokens"] = count;
    expect_refused("weft.state.tokens");
  }
}

TEST_F(DamagedState, IsToldByItsTensors) {
  for (const float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    Tensor part = file_.tensors[1].second.clone();
    part.mutable_data<float>()[3] = bad;
    file_.tensors[1].second = part;
    expect_refused(file_.tensors[1].first + " has values that are not finite");
  }
  file_.tensors.pop_back();
  expect_refused("the state is of another model");
  file_.tensors.emplace_back("more", Tensor::zeros({DType::kF32, {1}}));
  expect_refused("the state is of another model");
  file_.tensors[0].second = file_.tensors[0].second.to(DType::kBF16);
  expect_refused("the state is of another model");
}

TEST(LanguageSession, IsSafeFromSeveralThreads) {
  const LanguageSession session(small_language_model(), {.threads = 2});
  const auto work = [&](unsigned seed) {  // lengths that compile while others run
    LanguageState state = session.start();
    std::vector<Tensor> logits;
    for (const std::size_t count : {seed, 7U, 1U, 1U, 33U + seed, 1U, 300U}) {
      logits.push_back(session.read(random_tokens(count, 97, seed), state));
    }
    return std::pair(logits, state);
  };
  std::vector<std::pair<std::vector<Tensor>, LanguageState>> got(4);
  std::vector<std::thread> threads;
  for (unsigned t = 0; t < 4; ++t) threads.emplace_back([&, t] { got[t] = work(t + 1); });
  for (std::thread& thread : threads) thread.join();
  for (unsigned t = 0; t < 4; ++t) {
    const auto [logits, state] = work(t + 1);
    EXPECT_TRUE(std::ranges::equal(got[t].first, logits, same_bits));
    EXPECT_TRUE(same_state(got[t].second, state));
  }
}

TEST(LanguageSession, RefusesPicturesAndSessionsOfPicturesRefuseIt) {
  EXPECT_TRUE(refuses([] { LanguageSession(Model::create("vrwkv_tiny")); }, "pictures"));
  EXPECT_THROW(LanguageSession(Model::create("vrwkv_tiny")), UnsupportedError);
  EXPECT_TRUE(refuses([] { Session{small_language_model()}; }, "reads text, not pictures"));
  EXPECT_THROW(Session{small_language_model()}, UnsupportedError);
  EXPECT_THROW((void)small_language_model().macs(32, 32), UnsupportedError);
}

TEST(LanguageSession, RefusesOptionsThatMakeNoSense) {
  const Model model = small_language_model();
  EXPECT_THROW(LanguageSession(model, {.threads = -1}), ConfigError);
  EXPECT_THROW(LanguageSession(model, {.max_memory = -1}), ConfigError);
  for (const DType dtype : {DType::kF64, DType::kF16, DType::kU8}) {
    EXPECT_THROW(LanguageSession(model, {.dtype = dtype}), ConfigError);
  }
}

TEST(LanguageSession, RefusesLogitsThatWouldPassItsMemoryLimit) {
  constexpr std::int64_t kRoom = 64 << 20;
  const LanguageSession session(small_language_model({.vocab_size = 4096, .n_embd = 16, .dim_ffn = 16}),
                                {.threads = 1, .max_memory = resident_bytes() + kRoom});
  const Tokens tokens = random_tokens(8192);  // 128 MiB of logits
  LanguageState state = session.start();
  const LanguageState before = state;
  EXPECT_TRUE(refuses([&] { (void)session.read_all(tokens, state); }, "the limit is"));
  EXPECT_TRUE(same_state(state, before));
  EXPECT_EQ(session.read(tokens, state).shape(), (Shape{4096}));
  EXPECT_EQ(state.tokens, 8192);
}

TEST(LanguageSession, RefusesToPackWeightsBeyondItsMemoryLimit) {
  const Model model = small_language_model({.vocab_size = 4096, .n_embd = 128, .dim_ffn = 512});
  const LanguageSession session(model, {.threads = 1, .max_memory = resident_bytes()});
  LanguageState state = session.start();
  EXPECT_TRUE(refuses([&] { (void)session.read(random_tokens(3), state); }, "packed weights would take"));
  EXPECT_EQ(state.tokens, 0);
}

// The closed form of the official code: C = 768, 12 layers of 13·C² in matrices and 11·C beside them, a norm at each
// end and the head. The table of 50277·C is looked up in one row.
TEST(LanguageSession, TellsTheBytesOfAToken) {
  const Model model = Model::create("rwkv4_169m");
  constexpr std::int64_t kC = 768;
  constexpr std::int64_t kMatrices = 12 * 13 * kC * kC + 50277 * kC;
  constexpr std::int64_t kVectors = 12 * 11 * kC + 2 * 2 * kC;
  EXPECT_EQ(model.parameter_count(), kMatrices + kVectors + 50277 * kC);
  EXPECT_EQ(LanguageSession(model, {.threads = 1}).bytes_per_token(), 4 * (kMatrices + kVectors));
  EXPECT_EQ(LanguageSession(model, {.threads = 1, .dtype = DType::kBF16}).bytes_per_token(),
            2 * kMatrices + 4 * kVectors);
  EXPECT_EQ(LanguageSession(model, {.threads = 1, .dtype = DType::kI8}).bytes_per_token(), kMatrices + 4 * kVectors);
}

TEST(LanguageSession, GenerationTakesNoMoreMemoryTheLongerItIs) {
  const LanguageSession session(small_language_model(), {.threads = 2});
  LanguageState state = session.start();
  std::int32_t token = 1;
  const auto generate = [&](int count) {
    for (int i = 0; i < count; ++i) {
      const Tensor logits = session.read({&token, 1}, state);
      token = static_cast<std::int32_t>(std::ranges::max_element(logits.data<float>()) - logits.data<float>().begin());
    }
  };
  generate(100);
  const tests::AllocationCount count;
  generate(19'900);
  EXPECT_EQ(state.tokens, 20'000);
  EXPECT_LT(count.kept(), 2048);  // less than the states and logits of a single token
}

TEST(LanguageSession, ReadingTakesNoMemoryButForItsResults) {
  const LanguageSession session(small_language_model({.vocab_size = 97, .n_embd = 128, .dim_ffn = 1024}),
                                {.threads = 1});
  const Tokens tokens = random_tokens(64);
  LanguageState state = session.start();
  session.read(tokens, state);
  EXPECT_GT(session.working_bytes(64), 32 << 10);
  const tests::AllocationCount count;
  session.read(tokens, state);
  // The largest part of a state, [1,3,136] of f32, and what an aligned tensor has around it; oneDNN books small
  // records.
  EXPECT_LE(count.largest(), 3 * 136 * sizeof(float) + 128);
}

}  // namespace
}  // namespace weft
