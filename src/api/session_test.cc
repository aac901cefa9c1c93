#include <gtest/gtest.h>
#include <sys/mman.h>

#include <cstring>
#include <filesystem>
#include <thread>

#include "api/model_data.h"
#include "core/process_memory.h"
#include "core/threads.h"
#include "graph/evaluate.h"
#include "kernel/testing/product_types.h"
#include "ops/testing/op_test.h"
#include "verify/rounding.h"
#include "weft/weft.h"

namespace weft {
namespace {

using testing::random_tensor;
using testing::relative_error;

Model small_model(std::vector<std::pair<std::string, std::string>> config = {}) {
  std::vector<std::pair<std::string, std::string>> all = {
      {"embed_dims", "24"}, {"depth", "2"}, {"img_size", "[32,32]"}, {"patch_size", "8"}, {"num_classes", "5"}};
  all.insert(all.end(), config.begin(), config.end());
  return Model::create("vrwkv_tiny", 1, {.config = all});
}

// Two layers of products with 24 … 96 terms each: the golden cases of this size meet 1e-5.
constexpr double kTolerance = 1e-5;

TEST(Session, EverySizeAndBatchEqualsTheReference) {
  const Model model = small_model();
  const Session session(model, {.threads = 2});
  for (const Shape& shape : {Shape{1, 3, 32, 32}, Shape{3, 3, 32, 32}, Shape{2, 3, 17, 70}, Shape{1, 3, 1, 1},
                             Shape{1, 3, 8, 200}, Shape{1, 3, 1, 97}}) {
    const Tensor input = random_tensor(shape, 9);
    const auto graph = build_graph(*model.data().architecture, shape, std::vector{0, 1});
    const std::vector<Tensor> want = evaluate_reference(*graph, model.data().weights, {&input, 1});
    EXPECT_LE(relative_error(session.logits(input), want.back()), kTolerance) << shape.str();
    const Features features = session.features(input, std::vector{0, -1});
    EXPECT_LE(relative_error(features.maps[0], want[0]), kTolerance) << shape.str();
    EXPECT_LE(relative_error(features.maps[1], want[1]), kTolerance) << shape.str();
    EXPECT_LE(relative_error(features.pooled, want[2]), kTolerance) << shape.str();
  }
}

TEST(Session, ABatchEqualsItsPicturesOneByOne) {
  const Session session(small_model(), {.threads = 2});
  const Tensor batch = random_tensor({4, 3, 40, 24}, 2);
  const Tensor together = session.logits(batch);
  for (std::int64_t i = 0; i < 4; ++i) {
    const std::int64_t pixels = 3 * 40 * 24;
    const Tensor one =
        Tensor::of(batch.data<float>().subspan(static_cast<std::size_t>(i * pixels), pixels), {1, 3, 40, 24});
    const Tensor alone = session.logits(one);
    const Tensor row = Tensor::of(together.data<float>().subspan(static_cast<std::size_t>(i * 5), 5), {1, 5});
    EXPECT_LE(relative_error(row, alone), kTolerance);
  }
}

TEST(Session, IsSafeFromSeveralThreads) {
  const Session session(small_model(), {.threads = 2});
  const Tensor input = random_tensor({1, 3, 32, 32}, 1);
  const Tensor want = session.logits(input);
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      for (int run = 0; run < 10; ++run) {
        const Tensor got = session.logits(input);
        EXPECT_TRUE(std::ranges::equal(got.data<float>(), want.data<float>()));
        (void)session.logits(random_tensor({1, 3, 8 + 8 * t, 8 + 8 * run}, 1));  // other shapes compile meanwhile
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
}

// Shifts, mixers and norms between products that hand each other encoded rows.
TEST(Session, InFewerBitsIsNearF32AndTheSameEveryTime) {
  if (testing::fewer_bits().empty()) GTEST_SKIP() << testing::kNoFewerBits;
  const Model vit = Model::create("vit_tiny_patch16_224", 1,
                                  {.config = {{"embed_dim", "24"},
                                              {"depth", "2"},
                                              {"num_heads", "3"},
                                              {"img_size", "[32,32]"},
                                              {"patch_size", "8"},
                                              {"num_classes", "5"}}});
  for (const Model& model : {small_model(), small_model({{"key_norm", "true"}, {"post_norm", "true"}}),
                             small_model({{"shift_pixel", "0"}}), vit}) {
    for (const Shape& shape : {Shape{1, 3, 32, 32}, Shape{3, 3, 40, 24}}) {
      const Tensor input = random_tensor(shape, 9);
      const auto graph = build_graph(*model.data().architecture, shape, {});
      const Tensor want = Session(model, {.threads = 2}).logits(input);
      for (const DType dtype : testing::fewer_bits()) {
        for (const int threads : {1, 2}) {
          SCOPED_TRACE(fmt::format("{} {} {} threads {}", model.family(), shape, threads, name_of(dtype)));
          const Session session(model, {.threads = threads, .dtype = dtype});
          EXPECT_EQ(session.dtype(), dtype);
          const Tensor got = session.logits(input);
          EXPECT_LE(relative_error(got, want), rounding_tolerance(*graph, dtype));
          EXPECT_GT(relative_error(got, want), kTolerance) << "was not used";
          const Tensor again = session.logits(input);
          EXPECT_TRUE(std::ranges::equal(again.data<float>(), got.data<float>()));
          const Tensor anew = Session(model, {.threads = threads, .dtype = dtype}).logits(input);
          EXPECT_TRUE(std::ranges::equal(anew.data<float>(), got.data<float>()));
        }
      }
    }
  }
}

TEST(Session, RefusesElementTypesThatProductsDoNotHave) {
  for (const DType dtype : {DType::kF64, DType::kF16, DType::kU8, DType::kI32}) {
    EXPECT_THROW(Session(small_model(), {.dtype = dtype}), ConfigError);
  }
}

TEST(Session, RefusesWhatDoesNotFit) {
  const Session session(small_model(), {.threads = 1});
  EXPECT_THROW((void)session.logits(random_tensor({1, 4, 32, 32}, 1)), ShapeError);
  EXPECT_THROW((void)session.logits(random_tensor({3, 32, 32}, 1)), ShapeError);
  EXPECT_THROW((void)session.logits(random_tensor({0, 3, 32, 32}, 1)), ShapeError);
  EXPECT_THROW((void)session.logits(Tensor::zeros({DType::kF64, {1, 3, 32, 32}})), ShapeError);
  EXPECT_THROW((void)session.features(random_tensor({1, 3, 32, 32}, 1), std::vector{2}), ConfigError);
  EXPECT_THROW(Session(small_model(), {.threads = -1}), ConfigError);
  const Session backbone(small_model({{"head", "none"}}), {.threads = 1});
  EXPECT_THROW((void)backbone.logits(random_tensor({1, 3, 32, 32}, 1)), UnsupportedError);
}

TEST(Session, RefusesLogitsThatAreNotFinite) {
  // Sound weights and a sound input whose products leave the range of f32.
  const Model model = small_model();
  ModelData data = model.data();
  Tensor weight = data.weights.at("head.fc.weight").clone();
  std::ranges::fill(weight.mutable_data<float>(), 3e38F);
  data.weights.insert_or_assign("head.fc.weight", weight);
  const Session session(Model(std::make_shared<const ModelData>(data)), {.threads = 1});
  const Image image{.height = 32, .width = 32, .channels = 3, .pixels = std::vector<std::uint8_t>(32 * 32 * 3, 200)};
  EXPECT_THROW((void)session.classify(image), Error);
}

TEST(Session, WorksWithinAnArenaOfItsCaller) {
  // The caller's tasks have numbers of their own, larger than the session has threads.
  const Model model = small_model();
  const Tensor input = random_tensor({1, 3, 32, 32}, 1);
  const Tensor want = Session(model, {.threads = 1}).logits(input);
  const Workers others(8);
  others.enter([&] {
    others.parallel_for(64, 1, [&](std::int64_t, std::int64_t) {
      for (const int threads : {1, 2}) {
        const Tensor got = Session(model, {.threads = threads}).logits(input);
        EXPECT_LE(relative_error(got, want), kTolerance);
      }
    });
  });
}

TEST(Session, ClassifiesPictures) {
  const Model model = small_model();
  const Session session(model);
  Image image{.height = 50, .width = 40, .channels = 3, .pixels = std::vector<std::uint8_t>(50 * 40 * 3)};
  for (std::size_t i = 0; i < image.pixels.size(); ++i) image.pixels[i] = static_cast<std::uint8_t>(i * 7);
  const std::vector<Prediction> predictions = session.classify(image, 3);
  ASSERT_EQ(predictions.size(), 3U);
  EXPECT_GE(predictions[0].probability, predictions[1].probability);
  EXPECT_TRUE(predictions[0].label.starts_with("class "));
  double sum = 0;
  for (const Prediction& p : session.classify(image, 99)) sum += p.probability;
  EXPECT_NEAR(sum, 1, 1e-9);
}

TEST(Model, SurvivesSavingAndLoading) {
  const auto file = std::filesystem::temp_directory_path() / "weft_model_test.safetensors";
  const Model model =
      small_model({{"post_norm", "true"}, {"init_values", "0.5"}}).with_labels({"a", "b", "c", "d", "é"});
  model.with_preprocess({.resize = 40, .crop = 32, .filter = Filter::kLanczos}).save(file);
  const Model back = Model::load(file);
  EXPECT_EQ(back.config(), model.config());
  EXPECT_EQ(back.labels(), model.labels());
  EXPECT_EQ(back.preprocess().resize, 40);
  EXPECT_EQ(back.preprocess().filter, Filter::kLanczos);
  const Tensor input = random_tensor({1, 3, 32, 32}, 1);
  const Tensor a = Session(model, {.threads = 1}).logits(input);
  const Tensor b = Session(back, {.threads = 1}).logits(input);
  EXPECT_TRUE(std::ranges::equal(a.data<float>(), b.data<float>()));
  std::filesystem::remove(file);
  EXPECT_THROW((void)model.with_labels({"too", "few"}), ConfigError);
  EXPECT_THROW((void)model.with_labels({"a", "b", "c", "d", "\xe9"}), ConfigError);
}

TEST(Model, TellsAllMisfitsInOneMessage) {
  ModelData data = small_model().data();
  data.weights.erase("backbone.ln1.weight");
  data.weights.insert_or_assign("head.fc.bias", Tensor::zeros({DType::kF32, {6}}));
  data.weights.emplace("extra", Tensor::zeros({DType::kF32, {1}}));
  Tensor nan = data.weights.at("backbone.ln1.bias").clone();
  nan.mutable_data<float>()[3] = std::numeric_limits<float>::quiet_NaN();
  data.weights.insert_or_assign("backbone.ln1.bias", nan);
  try {
    check_weights(data, "test");
    FAIL() << "no error";
  } catch (const WeightError& error) {
    EXPECT_STREQ(
        error.what(),
        "[test] the tensors do not fit vision_rwkv: missing: backbone.ln1.weight [24]; mis-shaped: head.fc.bias "
        "must be [5], got [6]; unexpected: extra [1]; NaN or infinite values in: backbone.ln1.bias");
  }
}

TEST(Model, RefusesOptionsThatAreNoPlainJson) {
  const std::string deep = std::string(100'000, '[') + std::string(100'000, ']');
  EXPECT_THROW((void)small_model({{"depth", deep}}), ConfigError);
  EXPECT_THROW((void)small_model({{"depth", "\xff"}}), ConfigError);
  EXPECT_THROW((void)small_model({{"depth", "two"}}), ConfigError);
}

TEST(Model, CountsNoMoreMacsThanItCan) {
  const auto [family, preset] = find_preset("vrwkv_tiny");
  Json config = preset->config;
  config.update({{"patch_size", 1}, {"embed_dims", 65536}, {"hidden_rate", 64}});
  const auto graph = build_graph(*family->configure(config), {1, 3, 65536, 65536}, {});
  EXPECT_THROW((void)graph->macs(), ShapeError);
}

TEST(Model, UnknownPresetsListWhatThereIs) {
  try {
    (void)Model::create("vrwkv_huge");
    FAIL() << "no error";
  } catch (const ConfigError& error) {
    EXPECT_NE(std::string(error.what()).find("vrwkv_tiny"), std::string::npos);
  }
}

TEST(Session, RefusesARunThatWouldPassItsMemoryLimit) {
  const Model model = Model::create("vrwkv_tiny");
  constexpr std::int64_t kRoom = 64 << 20;
  const Session session(model, {.threads = 1, .max_memory = resident_bytes() + kRoom});
  const Tensor small = random_tensor({1, 3, 64, 64}, 1);
  EXPECT_EQ(session.logits(small).shape(), (Shape{1, 1000}));  // 24 MB of packed weights and little else
  const Tensor large = Tensor::zeros({DType::kF32, {1, 3, 2048, 2048}});
  try {
    (void)session.logits(large);
    FAIL() << "no error";
  } catch (const MemoryError& error) {
    EXPECT_NE(std::string_view(error.what()).find("the limit is"), std::string_view::npos) << error.what();
  }
  EXPECT_EQ(session.logits(small).shape(), (Shape{1, 1000}));  // nothing is lost
  EXPECT_THROW(Session(model, {.max_memory = -1}), ConfigError);
}

// What fails is forgotten: no other shape meets its error, and it may be tried again.
TEST(Session, AFailedRunLeavesItUsable) {
  const Session session(small_model(), {.threads = 2});
  const Tensor sound = random_tensor({1, 3, 32, 32}, 1);
  const Tensor want = session.logits(sound);
  for (std::int64_t i = 0; i < 12; ++i) {  // more failures than a session keeps shapes
    const Tensor misfit = random_tensor({1, 4, 8 + i, 32}, 1);
    for (int again = 0; again < 2; ++again) EXPECT_THROW((void)session.logits(misfit), ShapeError);
    EXPECT_EQ(session.logits(random_tensor({1, 3, 8 + i, 32}, 1)).shape(), (Shape{1, 5}));
    EXPECT_THROW((void)session.features(sound, std::vector{99}), ConfigError);
  }
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      for (std::int64_t i = 0; i < 20; ++i) {  // all at the same shape: some wait for another's failure
        EXPECT_THROW((void)session.logits(Tensor::zeros({DType::kF32, {1, 4, 32, 32 + i}})), ShapeError);
        EXPECT_EQ(session.logits(Tensor::zeros({DType::kF32, {1, 3, 32, 8 + i}})).shape(), (Shape{1, 5}));
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  const Tensor got = session.logits(sound);
  EXPECT_TRUE(std::ranges::equal(got.data<float>(), want.data<float>()));
}

// Memory that counts against the limit until it is given back; not from the heap, which may keep it.
class Hog {
 public:
  explicit Hog(std::size_t bytes)
      : bytes_(bytes), at_(mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)) {
    if (at_ != MAP_FAILED) std::memset(at_, 1, bytes_);
  }
  ~Hog() {
    if (at_ != MAP_FAILED) munmap(at_, bytes_);
  }
  Hog(const Hog&) = delete;
  Hog& operator=(const Hog&) = delete;

 private:
  std::size_t bytes_;
  void* at_;
};

TEST(Session, WhatWasRefusedForMemoryRunsOnceThereIsRoom) {
  const Model model = small_model();
  constexpr std::int64_t kRoom = 64 << 20;
  const Session session(model, {.threads = 1, .max_memory = resident_bytes() + kRoom});
  const Tensor fresh = random_tensor({1, 3, 40, 40}, 1);
  const Tensor compiled = random_tensor({1, 3, 48, 48}, 1);
  EXPECT_GT(session.working_bytes(compiled.shape()), 0);
  {
    const Hog hog(kRoom + (1 << 20));
    for (int again = 0; again < 2; ++again) {
      EXPECT_THROW((void)session.logits(fresh), MemoryError);     // while compiling
      EXPECT_THROW((void)session.logits(compiled), MemoryError);  // for its arena
    }
  }
  const Session free(model, {.threads = 1});
  for (const Tensor& input : {fresh, compiled}) {
    const Tensor got = session.logits(input);
    const Tensor want = free.logits(input);
    EXPECT_TRUE(std::ranges::equal(got.data<float>(), want.data<float>()));
  }
}

TEST(Session, TakesTheTypesThatProductsMultiply) {
  const Model model = Model::create("vrwkv_tiny");
  EXPECT_THROW(Session(model, {.dtype = DType::kF16}), ConfigError);
  EXPECT_EQ(Session(model, {.dtype = DType::kI8}).dtype(), DType::kI8);
  EXPECT_TRUE(best_dtype() == DType::kF32 || best_dtype() == DType::kBF16);
}

}  // namespace
}  // namespace weft
